package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkGrowth shows what the work that goes through all sessions, lanes or waiters costs for each of them, with more and
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
		each("waiters for room on a lane", func(b *testing.B) func() { return queueUp(n) })
	}
}

// many is n sessions that have had the reply to one command, of one identity or each of its own.
func many(b *testing.B, n int, distinct bool, command, reply string) (*harness, []*wire) {
	var identities atomic.Uint64
	h := modes()[0].start(b, redisServer(b, "--maxclients", "20000"), func(c *Config) {
		c.MaxConnections, c.laneIdle, c.laneStay = 2*n, time.Hour, time.Hour
		c.Recheck = func(cs *tls.ConnectionState) (p Peer, err error) {
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

// queueUp has n sessions wait for room on a lane and then get it, one after the other.
func queueUp(n int) func() {
	all := make([]*session, n)
	for i := range all {
		all[i] = &session{sharing: new(sharing)}
		all[i].queue.init(newBuffers(0).open())
	}
	return func() {
		l := &lane{commands: laneCommands}
		for _, s := range all {
			if l.roomLocked(s, 1, 0) {
				panic("a full lane had room")
			}
		}
		for _, s := range all {
			l.commands--
			if !l.waits(s) || !l.roomLocked(s, 1, 0) {
				panic("the first in turn got no room")
			}
			l.commands++
		}
	}
}
