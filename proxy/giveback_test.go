package proxy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"dragontls/proxy/netio"
)

// The harness looks at the end of every test whether all accounts hold nothing. These tests end sessions where something
// was once forgotten.

// A panic in a write to the client gives back the buffer that was to be written, whoever writes: the lane's reader, or the
// writer goroutine that takes over what is long.
func TestPanicInAWriteGivesBackWhatWasToBeWritten(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"of the lane's reader": 10, "of the writer": 2 * netio.MaxWriteNow} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h, gates := b.startGated(nil)
			w, other := settled(h), settled(h)
			b.on(func(_ *laneConn, args []string) (string, bool) {
				return bulk(strings.Repeat("v", size)), args[len(args)-1] == "k"
			})
			var once atomic.Bool
			gates.of(w).Before(func() {
				if !once.Swap(true) {
					panic("on purpose")
				}
			})
			w.send(cmd("GET", "k"))
			w.endsUnanswered()
			h.wantPanic(closeInternalError, 1)
			other.get("goes on")
		})
	}
}

// An own connection over TLS is closed while it is idle, as the sweeper does, and its client takes nothing of a push that has
// half come. What was read ahead of the push comes back when the session ends.
func TestOwnConnectionClosedInsideAPushGivesBackWhatCame(t *testing.T) {
	t.Parallel()
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, h := overTLS(t, version)
			w := settled(h)
			say := b.infoThen(w, func(c *laneConn) {
				const size = 1 << 30
				_, err := fmt.Fprintf(c.w, ">1\r\n$%d\r\n", size)
				part := strings.Repeat("x", netio.ChunkSize)
				for n := 0; n < size && err == nil; n += len(part) { // until the connection is gone
					_, err = c.w.WriteString(part)
				}
			})
			s := h.sessionOf(w)
			eventually(t, "its own connection is idle", func() bool { _, idle := s.ownIdleAt(); return idle && !s.queue.hasTurn() })
			close(say)
			eventually(t, "its client takes nothing", s.client.sock.Stuck)
			if !s.closeOwn(h.now()) {
				t.Fatal("its own connection was not closed")
			}
			resetBy(w)
			eventually(t, "the session has ended", func() bool { return h.live() == 0 })
		})
	}
}
