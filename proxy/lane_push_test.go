package proxy

import (
	"fmt"
	"testing"
)

// invalidate is the push that Redis sends where CLIENT TRACKING of another connection is redirected to.
func invalidate(key string) string {
	return fmt.Sprintf(">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(key), key)
}

// A lane on which pushes come serves on until its successor is there; nobody is closed, and no session sees a push.
func TestLaneWithPushesIsReplacedAndClosesNobody(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	a, other := h.dial(), h.dial()
	for _, w := range []*wire{a, other} {
		w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
	}
	h.pass(stayInterval)
	a.get("0")
	other.get("1")
	const rounds = 5
	b.on(func(c *laneConn, args []string) (string, bool) {
		if c.lane && args[0] == "GET" {
			return invalidate("x") + c.answer(args) + invalidate("y"), true
		}
		return "", false
	})
	for i := range rounds {
		l := h.lane()
		l.nonces(i%2 == 0)
		held := b.hold("a")
		a.send(cmd("GET", "a") + cmd("GET", "behind it"))
		<-held.reached
		other.send(cmd("GET", "b"))
		eventually(t, "all are in flight and written", func() bool { return l.written() == 3 })
		held.say(invalidate("x") + valueOf("a"))
		a.want(valueOf("a") + valueOf("behind it"))
		other.want(valueOf("b"))
		if l.stateNow() != laneOpen || b.lanes() != i+1 {
			t.Fatalf("state %v, %d lanes were opened, before the sweeper came", l.stateNow(), b.lanes())
		}
		h.sweepUnused()
		<-l.closed()
		eventually(t, "its successor is there", func() bool { return len(h.openLanes()) == 1 })
		other.get("on the next one")
	}
	h.wantOnLanes("GET", 2+4*rounds)
	if b.lanes() != 1+rounds || len(h.Stats().SessionsClosed) > 0 || h.Stats().BackendErrors["lane"] > 0 || h.Stats().BackendErrors["lost"] > 0 {
		t.Errorf("%d lanes, sessions closed %v, errors %v", b.lanes(), h.Stats().SessionsClosed, h.Stats().BackendErrors)
	}
	if got := h.Stats().BackendErrors["push"]; got < rounds {
		t.Errorf("%d lanes with pushes were counted", got)
	}
}

// Where no successor can be had, the lane stays.
func TestLaneWithPushesServesOnWithoutASuccessor(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
	h.pass(stayInterval)
	w.get("0")
	l := h.lane()
	held := b.hold("a")
	w.send(cmd("GET", "a"))
	<-held.reached
	held.say(invalidate("x") + valueOf("a"))
	w.want(valueOf("a"))
	b.onAccept(func(c *laneConn) { c.reset() })
	dials := h.Stats().BackendDials
	h.sweepUnused()
	eventually(t, "a successor was dialled in vain", func() bool {
		return h.Stats().BackendDials > dials && !l.set().isDialling()
	})
	w.get("1")
	if h.lane() != l || len(h.Stats().SessionsClosed) > 0 {
		t.Errorf("another lane, or sessions closed: %v", h.Stats().SessionsClosed)
	}
	b.onAccept(nil)
	h.pass(laneRetry)
	h.sweepUnused()
	<-l.closed()
	w.get("2")
}

// Pushes that come while a lane or an own connection is set up are dropped, also one whose rest comes after all replies.
func TestPushesInASetUpAreDropped(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"HELLO", "SELECT", "PING", "MULTI", "EXEC", "ECHO"} {
		for name, how := range map[string]func(c *laneConn, reply string) string{
			"before": func(_ *laneConn, reply string) string { return invalidate("x") + reply },
			"after":  func(_ *laneConn, reply string) string { return reply + invalidate("x") + invalidate("y") },
			"cut": func(c *laneConn, reply string) string {
				push := invalidate("x")
				c.w.WriteString(reply + push[:15])
				c.w.Flush()
				return push[15:]
			},
		} {
			t.Run(at+" "+name, func(t *testing.T) {
				t.Parallel()
				b := newLaneBackend(t)
				h := b.start(nil)
				w := h.dial()
				w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
				w.do("+OK\r\n", "SELECT", "7")
				h.pass(stayInterval)
				h.closeOwnOf(w)
				b.on(func(c *laneConn, args []string) (string, bool) {
					if args[0] == at && len(c.commands()) <= 7 {
						return how(c, c.answer(args)), true
					}
					return "", false
				})
				w.do(bulk("7 3"), "HGET", "h", "f")
				w.do(bulk("info"), "INFO")
				w.do(bulk("7 3"), "HGET", "h", "f")
				h.wantOnLanes("HGET", 1)
				if !h.lane().pushed() {
					t.Error("the lane is not to be replaced")
				}
				if n := len(h.Stats().SessionsClosed); n != 0 || h.Stats().BackendErrors["no_lanes"] != 0 {
					t.Errorf("sessions closed: %v, errors %v", h.Stats().SessionsClosed, h.Stats().BackendErrors)
				}
			})
		}
	}
}

// closeOwnOf closes the session's own connection, as the sweeper would after a while.
func (h *harness) closeOwnOf(w *wire) {
	h.t.Helper()
	s := h.sessionOf(w)
	eventually(h.t, "its own connection is closed", func() bool { s.closeOwn(h.now()); return !s.hasOwn() })
}
