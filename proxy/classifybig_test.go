package proxy

import (
	"strings"
	"sync/atomic"
	"testing"

	"dragontls/proxy/proxytest"
)

var bigArg = strings.Repeat("0123456789", 30_000)

// cutBig is a big command in two pieces, of which the first is more than is held.
func cutBig(args ...string) (head, tail string) {
	whole := cmd(append(args, bigArg)...)
	return whole[:150_000], whole[150_000:]
}

// A command that is too big to be held goes over the session's own connection, behind everything that a lane owes.
func TestBigCommandWaitsForWhatALaneOwes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args  []string
		reply string
		pins  bool
	}{
		"a quiet one":  {args: []string{"SET", "k"}, reply: "+OK\r\n"},
		"a script":     {args: []string{"EVAL", "return 1", "0"}, reply: ":1\r\n", pins: true},
		"a subcommand": {args: []string{"CLIENT", "SETNAME"}, reply: "-ERR no\r\n", pins: true},
		"an unknown":   {args: []string{"NOSUCH"}, reply: "-ERR unknown command\r\n", pins: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w, other := settled(h), settled(h)
			var answered atomic.Bool
			b.on(func(c *laneConn, args []string) (string, bool) {
				if args[len(args)-1] != bigArg {
					return "", false
				}
				if !answered.Load() || c.lane {
					t.Errorf("it came too early, or on a lane (%v)", c.lane)
				}
				return tt.reply, true
			})
			held := b.hold("held")
			w.send(cmd("GET", "held"))
			<-held.reached
			head, tail := cutBig(tt.args...)
			w.send(head)
			s := h.sessionOf(w)
			eventually(t, "its beginning was read", func() bool { return s.holds.Load() == holdsCommands })
			other.send(cmd("GET", "behind"))
			held.reply <- func(*laneConn) string { answered.Store(true); return valueOf("held") }
			w.want(valueOf("held"))
			other.want(valueOf("behind"))
			w.send(tail + cmd("GET", "k"))
			w.want(tt.reply + valueOf("k"))
			if got := s.keepsOwn(); got != tt.pins {
				t.Errorf("own for life: %v", got)
			}
			h.pass(stayInterval)
			w.do(bulk("5 3"), "HGET", "h", "f")
			h.wantOnLanes("HGET", map[bool]int{true: 2, false: 3}[tt.pins])
			if n := len(h.Stats().SessionsClosed); n != 0 || b.lanes() != 1 {
				t.Errorf("%d lanes, sessions closed: %v", b.lanes(), h.Stats().SessionsClosed)
			}
		})
	}
}

// What was sent before a loss is not run behind it, however big. The rest of it is no command.
func TestBigCommandBehindALossIsNotRun(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{"its beginning waits": "", "the session recovers": cmd("INFO")} {
		for life, args := range map[bool][]string{false: {"SET", "k"}, true: {"EVAL", "return 1", "0"}} {
			t.Run(name+map[bool]string{true: ", for life"}[life], func(t *testing.T) {
				t.Parallel()
				b := newLaneBackend(t)
				h := b.start(nil)
				w, other := settled(h), settled(h)
				l := h.lane()
				held := b.hold("held")
				w.send(cmd("SET", "held"))
				<-held.reached
				head, _ := cutBig(args...)
				w.send(before + head)
				s := h.sessionOf(w)
				eventually(t, "its beginning was read", func() bool { return s.holds.Load() == holdsCommands })
				held.reply <- waysToGo["reset"]
				w.endsUnanswered()
				<-l.closed()
				h.wantClosed(closeBackendError, 1)
				other.get("goes on")
				if n := b.count("SET", ""); n != 1 || b.count("EVAL", "") != 0 || b.count("INFO", "") != 0 {
					t.Errorf("what was not to be sent was run: %d SET", n)
				}
			})
		}
	}
}

// Half of a big command reaches nobody as a command, whenever its client vanishes.
func TestClientThatVanishesInABigCommand(t *testing.T) {
	t.Parallel()
	for ending, vanish := range map[string]func(*wire){"FIN": func(w *wire) { w.Close() }, "RST": resetBy} {
		for name, lane := range map[string]func(*laneHold, *wire){
			"while a lane owes":   func(held *laneHold, w *wire) { vanish(w); held.release() },
			"behind a reply":      func(held *laneHold, w *wire) { held.release(); w.want(valueOf("held")); vanish(w) },
			"after a loss":        func(held *laneHold, w *wire) { held.reply <- waysToGo["reset"]; w.want(valueOf("held")); vanish(w) },
			"and the lane is too": func(held *laneHold, w *wire) { vanish(w); held.reply <- waysToGo["reset"] },
		} {
			t.Run(ending+" "+name, func(t *testing.T) {
				t.Parallel()
				b := newLaneBackend(t)
				h := b.start(nil)
				w, other := settled(h), settled(h)
				held := b.hold("held")
				w.send(cmd("GET", "held"))
				<-held.reached
				head, _ := cutBig("SET", "k")
				w.send(head)
				s := h.sessionOf(w)
				eventually(t, "its beginning was read", func() bool { return s.holds.Load() == holdsCommands })
				lane(held, w)
				eventually(t, "its session has ended", func() bool { return h.live() == 1 })
				other.get("x")
				if b.count("SET", "") != 0 || b.lines("0123") {
					t.Error("a part of it was run")
				}
			})
		}
	}
}

// A backend that is silent costs a big command an error, and its session nothing. Behind a command that was not sent it is
// not sent either, though the backend answers again.
func TestBigCommandWhileTheBackendIsSilent(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{"alone": "", "behind another": cmd("GET", "not sent")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, h, w := unconnected(t)
			b.falls("is silent")
			head, tail := cutBig("SET", "k")
			if before != "" {
				w.send(before + head[:100])
				w.want(sayUnavailable)
				head = head[100:]
			} else {
				w.send(head)
				w.want(sayUnavailable)
				head = ""
			}
			b.onAccept(nil)
			w.send(head + tail)
			if before != "" {
				w.want(sayUnavailable)
			}
			w.goesOn(valueOf("x"), "GET", "x")
			w.goesOn("+OK\r\n", "SET", "k", bigArg)
			w.goesOn(valueOf("y"), "GET", "y")
			if n := len(h.Stats().SessionsClosed); n != 0 || b.count("SET", "") != 1 {
				t.Errorf("sessions closed: %v; %d SET", h.Stats().SessionsClosed, b.count("SET", ""))
			}
		})
	}
}

// A transaction that began in a batch for a lane, and holds a big command, is the own connection's.
func TestBigCommandInATransaction(t *testing.T) {
	t.Parallel()
	d := dragonfly(t, proxytest.Options{RequirePass: "secret"})
	h := start(t, d.Addr(), func(c *Config) {
		share(c)
		c.Backend.Credentials, c.unavailableTimeout = credentials("", "secret"), patience
	})
	w := h.dial()
	w.do("+OK\r\n", "SET", "x", "1")
	w.send(cmd("GET", "x") + cmd("MULTI") + cmd("SET", "k", bigArg) + cmd("GET", "k") + cmd("EXEC") + cmd("GET", "x"))
	w.want("$1\r\n1\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n")
	w.wantLong(bulk(bigArg) + "$1\r\n1\r\n")
	h.pass(stayInterval)
	w.do("+OK\r\n", "SET", "x", "2")
	h.wantOnLanes("SET", 2)
	if got := h.Stats().CommandsLane["MULTI"]; got != 0 {
		t.Error("MULTI rode a lane")
	}
}
