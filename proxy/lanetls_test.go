package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
)

var tlsVersions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// overTLS is a laneBackend that speaks TLS of one version, and a Server that speaks it too.
func overTLS(t *testing.T, version uint16, change ...func(*Config)) (*laneBackend, *harness) {
	t.Helper()
	conf := testPKI().serverConfig()
	conf.MinVersion, conf.MaxVersion = version, version
	b := newLaneBackendWith(t, reserve(t, "127.0.0.1")[0], conf)
	return b, b.start(func(c *Config) {
		c.Backend.TLS = testPKI().clientConfig
		for _, f := range change {
			f(c)
		}
	})
}

// Whoever writes, idle lane or busy one: what a lane to such a backend is given goes through TLS.
func TestSessionsShareALaneOverTLS(t *testing.T) {
	t.Parallel()
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, h := overTLS(t, version)
			const sessions, rounds = 8, 30
			all := make([]*wire, sessions)
			for i := range all { // one at a time: the lane is idle at each
				all[i] = h.dial()
				all[i].get(fmt.Sprint(i))
				eventually(t, "the lane is idle", func() bool { _, idle := h.lane().idleAt(); return idle })
				all[i].get(fmt.Sprint(i))
			}
			var wg sync.WaitGroup
			for i, w := range all {
				wg.Go(func() {
					for n := range rounds {
						commands, replies := pipelineOf(1+n*n%50, fmt.Sprintf("%d-%d", i, n))
						commands += cmd("MULTI") + cmd("GET", "in it") + cmd("EXEC")
						replies += "+OK\r\n+QUEUED\r\n*1\r\n" + valueOf("in it")
						for _, l := range h.openLanes() {
							l.nonces(n%2 == 0)
						}
						got := make([]byte, len(replies))
						io.WriteString(w, commands)
						if k, err := io.ReadFull(w.r, got); err != nil || string(got) != replies {
							t.Errorf("session %d got %.200q (%v)\nwant %.200q", i, got[:k], err, replies)
							return
						}
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			h.wantOnLanes("EXEC", sessions*rounds)
			if b.lanes() != 1 || len(b.connsWith(false, "GET")) != 0 || len(h.Stats().SessionsClosed) != 0 {
				t.Errorf("%d lanes, %d other connections, closed %v", b.lanes(), len(b.connsWith(false, "GET")), h.Stats().SessionsClosed)
			}
		})
	}
}

// Commands and replies that are longer than a TLS record, up to what a lane is for and beyond.
func TestLongOnesOverTLS(t *testing.T) {
	t.Parallel()
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, h := overTLS(t, version)
			w, other := h.dial(), h.dial()
			w.get("0")
			other.get("1")
			for _, size := range []int{500, 511, 512, 513, 16 << 10, 16<<10 + 1, 60 << 10, 300 << 10, maxLaneReply - 100} {
				key := strings.Repeat("k", min(size, 60<<10))
				value := bulk(strings.Repeat("v", size))
				b.on(func(_ *laneConn, args []string) (string, bool) { return value, args[len(args)-1] == key })
				w.send(strings.Repeat(cmd("GET", key), 3))
				w.wantLong(strings.Repeat(value, 3))
				other.get("meanwhile")
			}
			if b.lanes() != 1 {
				t.Errorf("%d lanes", b.lanes())
			}
			big := strings.Repeat("big value ", 500_000)
			b.on(func(_ *laneConn, args []string) (string, bool) { return bulk(big), args[len(args)-1] == "big" })
			w.send(cmd("SET", "k", big)) // over its own
			w.want("+OK\r\n")
			h.pass(stayInterval)
			w.send(cmd("GET", "big"))
			w.wantLong(bulk(big))
			other.get("on another lane")
			w.get("goes on")
			got := b.connsWith(false, "SET")[0].commands()
			isBig := func(args []string) bool { return strings.HasSuffix(strings.Join(args, " "), big) }
			if got[0][0] != "AUTH" || !slices.ContainsFunc(got, isBig) {
				t.Errorf("%d commands came, not AUTH first and the big one", len(got))
			}
			if n := len(h.Stats().SessionsClosed); n != 0 {
				t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
			}
		})
	}
}

// A connection over TLS is lost in more ways than another. Each command on it costs an error, and the session nothing.
func TestLaneOverTLSIsLostAndFoundAgain(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]func(*laneConn) string{
		"reset":                func(c *laneConn) string { c.reset(); return "" },
		"closed":               func(c *laneConn) string { c.end(); return "" },
		"without close_notify": func(c *laneConn) string { c.tcp.CloseWrite(); io.Copy(io.Discard, c.tcp); return "" },
		"in a record":          func(c *laneConn) string { c.tcp.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3}); c.tcp.Close(); return "" },
		"a record that is not": func(c *laneConn) string {
			io.WriteString(c.tcp, valueOf("held"))
			io.Copy(io.Discard, c.tcp)
			return ""
		},
		"a forged record": func(c *laneConn) string {
			c.tcp.Write(append([]byte{23, 3, 3, 0, 100}, make([]byte, 100)...))
			io.Copy(io.Discard, c.tcp)
			return ""
		},
	} {
		for version, v := range tlsVersions {
			t.Run(name+" "+version, func(t *testing.T) {
				t.Parallel()
				b, h := overTLS(t, v)
				a, other := settled(h), settled(h)
				l := h.lane()
				held := b.hold("held")
				a.send(cmd("HGET", "h", "held"))
				<-held.reached
				other.send(strings.Repeat(cmd("HGET", "h", "f"), 10))
				eventually(t, "all are in flight and written", func() bool { return l.written() == 11 })
				held.reply <- way
				a.want(bulk("5 3")) // a read that was alone in flight was sent again
				other.endsUnanswered()
				h.wantClosed(closeBackendError, 1)
				h.pass(stayInterval)
				a.do(bulk("5 3"), "HGET", "h", "f")
				a.do(bulk("info"), "INFO")
				h.wantOnLanes("HGET", 2+11+1)
			})
		}
	}
}

// The backend goes, listener and all, and returns at its address.
func TestBackendOverTLSThatReturnsHasLanesAgain(t *testing.T) {
	t.Parallel()
	b, h := overTLS(t, tls.VersionTLS13, func(c *Config) { c.unavailableTimeout = outage })
	all := []*wire{settledAtLast(h), settledAtLast(h), settledAtLast(h)}
	b.ln.Close()
	b.mu.Lock()
	for _, c := range b.conns {
		c.tcp.Close()
	}
	b.mu.Unlock()
	eventually(t, "the lanes are gone", func() bool { return len(h.openLanes()) == 0 })
	for _, w := range all {
		w.send(cmd("GET", "x"))
	}
	for _, w := range all {
		w.endsUnanswered()
	}
	next := newLaneBackendWith(t, b.addr, testPKI().serverConfig())
	for range all {
		settledAtLast(h)
	}
	if next.lanes() != 1 || len(next.connsWith(true, "HGET")) != 1 {
		t.Errorf("%d lanes", next.lanes())
	}
}
