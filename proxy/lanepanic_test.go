package proxy

import (
	"fmt"
	"sync/atomic"
	"testing"

	"dragontls/proxy/backend"
)

// A panic of who writes to a lane, or reads it, leaves what is in flight in doubt: all that have something there end.
func TestPanicOnALaneTakesWhoIsOnItAlong(t *testing.T) {
	t.Parallel()
	t.Run("of its writer", func(t *testing.T) {
		t.Parallel()
		h, b, all := onOneLane(t, 3)
		writer := &faulty{fault: func() error { panic("on purpose") }}
		h.lane().replaceWith(t, func(up *backend.Conn) { writer.Conn, up.Stream = up.Stream, writer })
		held := b.hold("held")
		all[0].send(cmd("GET", "held")) // so that the next write is the writer's
		<-held.reached
		writer.armed.Store(true)
		all[1].send(cmd("GET", "a"))
		all[0].endsUnanswered()
		all[1].endsUnanswered()
		h.wantPanic(closeLane, 2)
		all[2].get("on another lane")
	})
	t.Run("of its reader", func(t *testing.T) {
		t.Parallel()
		h, b, all := onOneLane(t, 3)
		var armed atomic.Bool
		l := h.lane().replaceWith(t, func(up *backend.Conn) {
			tap(t, up, taps{read: func(call func() bool) bool {
				if armed.Load() {
					panic("on purpose")
				}
				return call()
			}})
		})
		held := b.hold("held")
		all[0].send(cmd("GET", "held"))
		<-held.reached
		all[1].send(cmd("GET", "a"))
		eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
		armed.Store(true)
		held.release()
		all[0].endsUnanswered()
		all[1].endsUnanswered()
		h.wantPanic(closeLane, 2)
		all[2].get("on another lane")
	})
	t.Run("of a session that writes", func(t *testing.T) {
		t.Parallel()
		h, _, all := onOneLane(t, 3)
		writing, other := make(chan struct{}), make(chan struct{})
		l := h.lane().replaceWith(t, func(up *backend.Conn) {
			tap(t, up, taps{write: func(func() bool) bool {
				close(writing)
				<-other
				panic("on purpose")
			}})
		})
		all[0].send(cmd("GET", "a"))
		<-writing
		all[1].send(cmd("GET", "b"))
		eventually(t, "both are in flight", func() bool { return l.inFlight() == 2 })
		close(other)
		all[0].endsUnanswered()
		all[1].endsUnanswered()
		eventually(t, "both are closed", func() bool { // whichever of its two reasons comes first to who panicked
			return h.closedFor(closeLane) >= 1 && h.closedFor(closeLane)+h.closedFor(closeInternalError) == 2
		})
		h.wantPanic(closeLane, h.closedFor(closeLane))
		all[2].get("on another lane")
	})
	t.Run("of a session that submits", func(t *testing.T) {
		t.Parallel()
		h, b, all := onOneLane(t, 3)
		held := b.hold("held")
		all[0].send(cmd("GET", "held"))
		<-held.reached
		l := h.lane()
		all[1].send(cmd(uncountable, "a"))
		all[1].endsUnanswered()
		all[0].endsUnanswered()
		<-l.closed()
		h.wantPanic(closeLane, 1)
		all[2].get("on another lane")
	})
}

// uncountable is a command like GET that no counter is for: counting it panics in the middle of what a lane takes.
const uncountable = "STRLEN"

// onOneLane is so many clients whose sessions have ridden one lane.
func onOneLane(t *testing.T, n int) (*harness, *laneBackend, []*wire) {
	t.Helper()
	return onOneOfLanes(t, n, 1)
}

// onOneOfLanes is onOneLane where there may be more of them.
func onOneOfLanes(t *testing.T, n, lanes int) (*harness, *laneBackend, []*wire) {
	t.Helper()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.Backend.Lanes = lanes })
	h.mu.Lock() // sessions start under it
	c, _, _ := h.settings.Load().commands.Lookup([]byte(uncountable))
	c.ID = 1 << 20
	h.mu.Unlock()
	all := make([]*wire, n)
	for i := range all {
		all[i] = h.dial()
		all[i].get(fmt.Sprint(i))
	}
	eventually(t, "the lane is idle", func() bool { _, idle := h.lane().idleAt(); return idle })
	h.lane().nonces(false)
	return h, b, all
}

// wantPanic waits for one panic, and for the sessions that end with it.
func (h *harness) wantPanic(reason closeReason, n uint64) {
	h.t.Helper()
	h.wantClosed(reason, n)
	if got := h.panics.Swap(0); got != 1 { // the harness wants none
		h.t.Errorf("%d panics", got)
	}
}

// A panic of who is asked for the credentials costs one dial of a lane, or one session, and nobody else anything.
func TestPanicOfCredentialsIsContained(t *testing.T) {
	t.Parallel()
	for name, dials := range map[string]bool{"at the dial of a lane": true, "at the beginning of a session": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			var wrong atomic.Bool
			h := b.start(func(c *Config) {
				c.Backend.Credentials = func() (string, string, error) {
					if wrong.Swap(false) {
						panic("on purpose")
					}
					return "", "secret", nil
				}
			})
			h.wantReady(true, "") // the prober asks no more
			w := h.dial()
			w.get("0")
			if dials {
				h.lane().retire()
				wrong.Store(true)
				w.get("on its own connection")
			} else {
				wrong.Store(true)
				h.dial().endsUnanswered()
				h.wantClosed(closeInternalError, 1)
			}
			w.get("1")
			if got := h.panics.Swap(0); got != 1 { // the harness wants none
				t.Errorf("%d panics", got)
			}
		})
	}
}
