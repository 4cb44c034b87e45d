package proxy

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkGrowth shows what the work that goes through all sessions or lanes costs for each of them, with more and
// more of them: the time for each may not grow.
func BenchmarkGrowth(b *testing.B) {
	for _, n := range []int{250, 1000, 4000} {
		each := func(name string, prepare func(b *testing.B) func()) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				op := prepare(b)
				b.ResetTimer()
				for range b.N {
					op()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/each")
			})
		}
		each("sweep of idle sessions", func(b *testing.B) func() {
			h, _ := many(b, n, false, cmd("PING"), "+PONG\r\n")
			return h.sweepOnce
		})
		each("sweep of lane keys", func(b *testing.B) func() {
			h, _ := many(b, n, true, cmd("GET", "none"), "$-1\r\n")
			return h.sweepOnce
		})
		each("judging anew", func(b *testing.B) func() {
			h, _ := many(b, n, false, cmd("PING"), "+PONG\r\n")
			return h.Recheck
		})
		each("own connections when a dial waits", func(b *testing.B) func() {
			h, _ := many(b, n, false, cmd("CLIENT", "GETNAME"), "$-1\r\n")
			return func() { h.closeIdlest(0) }
		})
	}
}

// many is n sessions that have had the reply to one command, of one identity or each of its own.
func many(b *testing.B, n int, distinct bool, command, reply string) (*harness, []*wire) {
	return manyOf(b, n, distinct, command, reply, func(*Config) {})
}

func manyOf(b *testing.B, n int, distinct bool, command, reply string, change func(*Config)) (*harness, []*wire) {
	var identities atomic.Uint64
	h := modes()[0].start(b, redisServer(b, "--maxclients", "20000"), func(c *Config) {
		c.MaxConnections, c.laneIdle, c.laneStay = 20000, time.Hour, time.Hour
		change(c)
		c.Recheck = func(*tls.ConnectionState) (p Peer, err error) {
			if distinct {
				p.Identity = sha256.Sum256(binary.AppendUvarint(nil, identities.Add(1)))
			}
			return p, nil
		}
	})
	all := make([]*wire, n)
	for i := range all {
		all[i] = h.dial()
		all[i].send(command)
		all[i].want(reply)
	}
	return h, all
}

// BenchmarkFullBackend is 200 sessions that want a connection of their own, of which there are 16, beside more and more idle
// sessions: these may cost them nothing.
func BenchmarkFullBackend(b *testing.B) {
	for _, idle := range []int{0, 1000, 6000} {
		b.Run(fmt.Sprintf("%d idle sessions", idle), func(b *testing.B) {
			h, _ := manyOf(b, idle, false, cmd("PING"), "+PONG\r\n", func(c *Config) {
				swept(c)
				c.Backend.MaxConnections, c.proofAge, c.unavailableTimeout = 16, time.Second, 2*time.Second
			})
			var refused atomic.Int64
			b.ResetTimer()
			const reply = "$7\r\ndefault\r\n"
			h.askInParallel(b, 200, cmd("ACL", "WHOAMI"), func(r *bufio.Reader) error { // keeps no session on its connection
				got, err := r.Peek(len(reply))
				if err == nil && string(got) != reply {
					refused.Add(1)
					_, err = r.ReadString('\n')
				} else {
					r.Discard(len(reply))
				}
				return err
			})
			b.ReportMetric(float64(refused.Load()), "refused")
		})
	}
}
