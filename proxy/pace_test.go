package proxy

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/backend"
)

// stuckPace gives n tokens within a test.
func stuckPace(n int) backend.Pace { return backend.Pace{Burst: n, Every: time.Hour} }

// pacedLoops make a session need a new connection of its own with each round.
var pacedLoops = map[string]struct {
	args       []string
	reply      string
	sharedOnly bool // with a connection for life nothing is dialled
}{
	"RESET":            {args: []string{"RESET"}, reply: "+RESET\r\n"},
	"a failing SELECT": {args: []string{"SELECT", "x"}, reply: "-ERR no\r\n", sharedOnly: true},
	"a failing HELLO":  {args: []string{"HELLO", "9"}, reply: "-ERR no\r\n", sharedOnly: true},
	"a failing name":   {args: []string{"CLIENT", "SETNAME", "x"}, reply: "-ERR no\r\n", sharedOnly: true},
	"unknown commands": {args: []string{"NOSUCH"}, reply: "-ERR no\r\n", sharedOnly: true},
}

// One client in a loop costs its first connection and a burst. Then it waits: it is not refused, and whoever is somebody
// else goes on. Nobody but the session's end is needed to end the wait.
func TestLoopOfOneSessionDialsAtItsPace(t *testing.T) {
	t.Parallel()
	for name, loop := range pacedLoops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, m mode) {
				if loop.sharedOnly && !m.shared {
					return
				}
				b := newLaneBackend(t)
				b.on(func(_ *laneConn, args []string) (string, bool) {
					return loop.reply, loop.reply[0] == '-' && args[0] == loop.args[0]
				})
				const burst = 5
				h := m.start(t, b.addr, func(c *Config) {
					c.Backend.Credentials = credentials("", "secret")
					c.sessionPace = stuckPace(burst)
				})
				w, mate, other := h.dial(), h.dial(), h.dialAs("somebody else")
				round := func() {
					w.do(loop.reply, loop.args...)
					if loop.sharedOnly { // a command that comes at once may find the connection that is to be closed
						eventually(t, "its own connection is closed", func() bool { h.sessionOf(w).shedDirty(); return !h.sessionOf(w).hasOwn() })
					}
				}
				round()
				before := b.count(loop.args[0], "")
				for range burst {
					round()
				}
				if m.shared && loop.args[0] == "RESET" {
					// The connection that a RESET leaves is there already.
					w.send(cmd(loop.args...))
				}
				w.send(strings.Repeat(cmd(loop.args...), 3))
				eventually(t, "it waits", func() bool { return h.Stats().BackendErrors["paced"] == 1 })
				dials := h.Stats().BackendDials
				for _, w := range []*wire{mate, other} {
					for i := range 50 {
						w.get(fmt.Sprint(i))
					}
					w.do(bulk("info"), "INFO")
					w.do("+RESET\r\n", "RESET")
					w.get("after RESET")
				}
				if n := b.count(loop.args[0], "") - before; n < burst || n > burst+2+2 {
					t.Errorf("%d rounds reached the backend", n)
				}
				if n := h.Stats().BackendDials - dials; n > 8 {
					t.Errorf("%d dials of two others", n)
				}
				w.breaks()
				eventually(t, "its end is noticed", func() bool { return h.live() == 2 })
			})
		})
	}
}

// Many sessions of one identity have its tokens between them; another identity has its own. With time there are more.
func TestSessionsOfAnIdentityShareItsPace(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		b := newLaneBackend(t)
		const sessions, burst = 4, 6
		p := stuckPace(burst)
		p.Every = 20 * time.Millisecond
		h := m.start(t, b.addr, func(c *Config) {
			share(c)
			c.Backend.Shared = false // as m says
			c.Backend.Credentials = credentials("", "secret")
			c.identityPace = p
		})
		const rounds = 10
		var wg sync.WaitGroup
		began := h.now()
		var all []*wire
		for range sessions {
			all = append(all, h.dial())
		}
		other := h.dialAs("somebody else")
		for _, w := range all {
			wg.Go(func() {
				for range rounds {
					w.do("+RESET\r\n", "RESET")
					w.get("k")
				}
			})
		}
		for range burst / 2 {
			other.do("+RESET\r\n", "RESET")
		}
		wg.Wait()
		// Each of them has dialled at least rounds-1 times after its first connection.
		tokens := sessions * (rounds - 1)
		took, least := h.now().Sub(began), time.Duration(tokens-burst)*p.Every
		if took < least {
			t.Errorf("%d connections took %v, which the pace allows in no less than %v", tokens, took, least)
		}
		if n := len(h.Stats().SessionsClosed); n != 0 {
			t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
		}
	})
}

// SELECT over many databases asks for a lane of each: those have a pace of their own, and the sessions wait for it.
func TestLanesOfManyDatabasesAreOpenedAtTheirPace(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	const burst = 4
	h := b.start(func(c *Config) { c.lanePace = stuckPace(burst) })
	other := h.dialAs("somebody else")
	other.get("0")
	w := h.dial()
	for db := range burst {
		w.do("+OK\r\n", "SELECT", fmt.Sprint(db))
		h.pass(stayInterval)
		w.do(bulk(fmt.Sprintf("%d 2", db)), "HGET", "h", "f")
	}
	w.do("+OK\r\n", "SELECT", "9")
	h.pass(stayInterval)
	w.send(cmd("HGET", "h", "f"))
	eventually(t, "it waits for a lane", func() bool { return h.Stats().BackendErrors["paced"] == 1 })
	other.get("1")
	h.wantOnLanes("HGET", burst)
	if n := b.lanes(); n != burst+1 {
		t.Errorf("%d lanes", n)
	}
	h.Close() // ends who waits
}

// breaks ends the connection with a reset.
func (w *wire) breaks() {
	raw := w.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
	raw.SetLinger(0)
	raw.Close()
}

// The wait for a token is no outage: however long it takes, the command is answered.
func TestWaitForATokenIsNoOutage(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	const outage = 2 * time.Second
	long := backend.Pace{Burst: 1, Every: outage + 300*time.Millisecond}
	h := b.start(func(c *Config) { c.lanePace, c.sessionPace, c.unavailableTimeout = long, long, outage })
	var wg sync.WaitGroup
	lane, own := h.dial(), h.dialAs("somebody else")
	wg.Go(func() {
		lane.get("0")
		lane.do("+OK\r\n", "SELECT", "1")
		h.pass(stayInterval)
		lane.do(bulk("1 2"), "HGET", "h", "f")
	})
	wg.Go(func() {
		own.do("+RESET\r\n", "RESET") // the second connection
		own.do("+RESET\r\n", "RESET") // the third
		own.get("0")
	})
	wg.Wait()
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// A state that the backend refuses to restore ends the session with that reason, after one dial.
func TestStateThatTheBackendRefusesIsNotDialledInALoop(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"SELECT": {"SELECT", "7"}, "HELLO": {"HELLO", "3"}, "READONLY": {"READONLY"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := map[string]string{"SELECT": "SELECT 7", "HELLO": "HELLO 3", "READONLY": "READONLY"}[name]
			b := newLaneBackend(t)
			refuse := func(_ *laneConn, got []string) (string, bool) {
				return "-ERR DB index is out of range\r\n", got[0] == name
			}
			b.on(func(c *laneConn, got []string) (string, bool) { return "+OK\r\n", got[0] == "READONLY" })
			h := b.start(nil)
			w, other := h.dial(), h.dialAs("somebody else")
			w.send(cmd(args...))
			w.line()
			if name == "HELLO" {
				w.want("$5\r\nproto\r\n:3\r\n")
			}
			w.SetReadDeadline(time.Time{})
			h.closeOwnOf(w)
			b.on(refuse)
			dials := h.Stats().BackendDials
			w.send(cmd("INFO"))
			if got := w.wantEnd(); got != fmt.Sprintf("-"+formBackendState+"\r\n", asked, "ERR DB index is out of range") {
				t.Errorf("got %q", got)
			}
			if n := h.Stats().BackendDials - dials; n != 1 {
				t.Errorf("%d dials", n)
			}
			h.wantClosed(closeBackendState, 1)
			other.get("goes on")
		})
	}
}

// Sessions that end while they wait leave nothing behind, in either place where they may stand.
func TestSessionsThatWaitForATokenEndAtOnce(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config){
		"its own":                        func(c *Config) { c.sessionPace = stuckPace(1) },
		"its identity's, some in a line": func(c *Config) { c.identityPace = stuckPace(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, m mode) {
				b := newLaneBackend(t)
				h := m.start(t, b.addr, func(c *Config) {
					share(c)
					c.Backend.Shared = false
					c.Backend.Credentials = credentials("", "secret")
					change(c)
				})
				var all []*wire
				for range 4 {
					w := h.dialCert(testPKI().client)
					w.send(strings.Repeat(cmd("RESET"), 4))
					all = append(all, w)
				}
				eventually(t, "all wait", func() bool { return h.Stats().BackendErrors["paced"] == 4 })
				all[0].breaks()
				drained := make(chan error, 1)
				go func() { drained <- h.Drain(50 * time.Millisecond) }()
				if err := <-drained; err != ErrCut {
					t.Errorf("drained: %v", err)
				}
				for _, w := range all[1:] {
					w.wantEnd()
				}
			})
		})
	}
}
