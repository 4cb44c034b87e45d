package proxy

import (
	"crypto/tls"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/proxytest"
)

// stableAddress is an address that leads to one of two real backends, to the first one until failover.
type stableAddress struct {
	*proxytest.Relay
	t             testing.TB
	first, second string // sockets
	password      string
}

func newStableAddress(t testing.TB, password string) *stableAddress {
	t.Helper()
	a := &stableAddress{t: t, password: password}
	var args []string
	if password != "" {
		args = []string{"--requirepass", password}
	}
	a.first, a.second = redisServer(t, args...), redisServer(t, args...)
	for _, at := range []string{a.first, a.second} {
		a.at(at, "+OK\r\n", "SET", "read", "value")
	}
	r, err := proxytest.NewRelay("unix:"+a.first, proxytest.Faults{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	a.Relay = r
	return a
}

// at sends a command to one of the backends directly.
func (a *stableAddress) at(socket, want string, args ...string) {
	a.t.Helper()
	w := dialPlain(a.t, socket)
	defer w.Close()
	if a.password != "" {
		w.do("+OK\r\n", "AUTH", a.password)
	}
	w.do(want, args...)
}

// failover makes the second backend the master. Open connections stay at the first, which is a replica from here on: it serves
// reads, and answers -READONLY to a write.
func (a *stableAddress) failover() {
	a.t.Helper()
	a.at(a.first, "+OK\r\n", "REPLICAOF", "127.0.0.1", "1")
	a.Retarget("unix:" + a.second)
}

// A failover behind a stable address costs each writer one reconnection, as over a direct connection, and readers nothing.
func TestFailoverBehindAStableAddress(t *testing.T) {
	t.Parallel()
	for name, password := range map[string]string{"with a password": "secret", "without": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, m mode) {
				a := newStableAddress(t, password)
				h := m.start(t, a.Addr(), func(c *Config) {
					c.Backend.Credentials = credentials("", password)
				})
				var over atomic.Bool
				var readers sync.WaitGroup
				for range 3 {
					r := h.dial()
					readers.Go(func() {
						for after := 0; after < 100 && !t.Failed(); {
							r.send(cmd("GET", "read"))
							r.want(bulk("value"))
							if over.Load() {
								after++
							}
						}
					})
				}
				w := h.dial()
				for range 100 {
					w.do("+OK\r\n", "SET", "written", "before")
				}
				a.failover()
				reconnected := 0
				for done := 0; done < 100; {
					w.send(cmd("SET", "written", "after"))
					line, err := w.r.ReadString('\n')
					if err != nil {
						t.Fatal(err)
					}
					if line == "+OK\r\n" {
						done++
						continue
					}
					if !strings.HasPrefix(line, "-READONLY ") {
						t.Fatalf("the writer got %q", line)
					}
					if reconnected++; reconnected > 1 {
						t.Fatal("the writer reconnects, and is at the replica again")
					}
					w.Close()
					w = h.dial()
				}
				a.at(a.second, bulk("after"), "GET", "written")
				over.Store(true)
				readers.Wait()
				if m.shared {
					eventually(t, "the lanes to the replica are gone", func() bool { return !h.anyLaneDialledBeforeMove() })
				}
			})
		})
	}
}

func (h *harness) anyLaneDialledBeforeMove() bool {
	for _, l := range h.lanes.Live() {
		if _, before := h.backend.DialledBeforeMove(aLane{l}.up()); before {
			return true
		}
	}
	return false
}

const sayReadonly = "-READONLY You can't write against a read only replica.\r\n"

// saysReplica has the backend answer each of these commands as a replica does, with this reply.
func (b *laneBackend) saysReplica(reply string, names ...string) {
	b.on(func(_ *laneConn, args []string) (string, bool) { return reply, slices.Contains(names, args[0]) })
}

// dialWithout is a client without a certificate.
func (h *harness) dialWithout() *wire {
	h.t.Helper()
	conf := testPKI().clientConfig()
	conf.Certificates = nil
	c, err := tls.Dial("tcp", h.addr, conf)
	if err != nil {
		h.t.Fatal(err)
	}
	return newWire(h.t, c)
}

// moves is how often the backend has moved.
func (h *harness) moves() uint64 {
	n, _ := h.backend.DialledBeforeMove(&backend.Conn{})
	return n
}

// Whatever connection brings the answer of a replica, what was dialled before it ends, and what the client sends next goes over a new
// connection. Nobody is closed for it: who cannot leave stays, as it would on a direct connection.
func TestAnswerOfAReplicaHasConnectionsDialledAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		command []string
		reply   string
	}{
		"on a lane":            {[]string{"SET", "k", "v"}, sayReadonly},
		"on an own connection": {[]string{"INFO"}, sayReadonly},
		"without its master":   {[]string{"GET", "k"}, "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n"},
		"from birth":           {[]string{"SET", "k", "v"}, sayReadonly},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) {
				c.TLS = c.TLS.Clone()
				c.TLS.ClientAuth = tls.VerifyClientCertIfGiven
			})
			quiet, forLife, watching := h.dial(), h.dial(), h.dial()
			teller := quiet
			if name == "from birth" {
				teller = h.dialWithout()
				teller.get("0")
			}
			for _, w := range []*wire{quiet, forLife, watching} {
				w.get("0")
			}
			quiet.do(bulk("info"), "INFO")
			forLife.do("+OK\r\n", "CLIENT", "ID")
			watching.do("+OK\r\n", "WATCH", "k")
			before := h.lane()
			owns := h.sessionOf(quiet)
			b.saysReplica(tt.reply, tt.command[0])
			teller.do(tt.reply, tt.command...)
			eventually(t, "the backend moves", func() bool { return h.moves() == 1 })
			b.on(nil)
			eventually(t, "the lane takes no more work", func() bool { return before.stateNow() != laneOpen })
			eventually(t, "the own connection is closed", func() bool { return !owns.hasOwn() })
			quiet.get("1")
			quiet.do(bulk("info"), "INFO")
			forLife.do("+OK\r\n", "CLIENT", "ID")
			watching.do("+OK\r\n", "UNWATCH")
			if n := h.Stats().BackendRecoveries["readonly"]; n != 1 || !strings.Contains(h.logs.String(), `"address":"`+b.addr+`"`) {
				t.Errorf("counted %d times; the log says %s", n, h.logs)
			}
			if n := len(h.Stats().SessionsClosed); n != 0 {
				t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
			}
		})
	}
}

// A backend that is a replica still on a new connection is one. It is not dialled again for each write, and reads go on.
func TestReplicaIsNotDialledAgainAndAgain(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	b.saysReplica(sayReadonly, "SET")
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	begun := time.Now()
	w.do(sayReadonly, "SET", "k", "v")
	eventually(t, "the backend moves", func() bool { return h.moves() == 1 })
	for range 100 {
		w.do(sayReadonly, "SET", "k", "v")
		w.get("0")
	}
	other := h.dial()
	other.do(sayReadonly, "SET", "k", "v")
	other.get("0")
	moves := h.moves()
	if inPause := time.Since(begun) < time.Second; inPause && (moves != 1 || b.lanes() != 2) {
		t.Errorf("moved %d times, with %d lanes in all", moves, b.lanes())
	}
	h.pass(time.Minute)
	other.do(sayReadonly, "SET", "k", "v")
	eventually(t, "it is asked again after a pause", func() bool { return h.moves() > moves })
}
