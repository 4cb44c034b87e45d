package proxy

import (
	"fmt"
	"testing"
)

// another opens one more lane beside those that there are.
func (l *lane) another(t testing.TB) *lane {
	t.Helper()
	before := len(l.set.lanes())
	l.set.mu.Lock()
	l.set.dialLocked()
	l.set.mu.Unlock()
	eventually(t, "another lane", func() bool { return len(l.set.lanes()) > before })
	return l.set.lanes()[before]
}

// What waits behind a retired lane goes to the next one as soon as the last reply has come, which the retired one's reader
// may not have accounted for.
func TestSessionThatChangesLanesCountsWhatItHasInFlight(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	s := h.sessionOf(w)
	l := h.lane()
	for i := range 100 {
		key := fmt.Sprint("held ", i)
		held := b.hold(key)
		w.send(cmd("GET", key))
		<-held.reached
		next := l.another(t)
		l.retire()
		commands, replies := pipelineOf(20, fmt.Sprint(i))
		w.send(commands)
		eventually(t, "the session waits", func() bool { return s.hand.Load() == handFull })
		held.release()
		w.want(valueOf(key) + replies)
		l = next
	}
	h.wantOnLanes("GET", 2101)
	eventually(t, "nothing is in flight", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.commands == 0 && l.bytes == 0 && s.onLane.commands.Load() == 0 && s.onLane.bytes.Load() == 0
	})
}
