package proxy

import (
	"strings"
	"testing"
)

// waiting is a lane with a command at the backend, one in a write that takes nothing yet, and three that wait for that
// write to return. They belong to one session each.
func waiting(t *testing.T) (h *harness, l aLane, held *laneHold, stuck *stuckWrite, clients [3]*wire) {
	t.Helper()
	b := newLaneBackend(t)
	h = b.start(nil)
	for i := range clients {
		clients[i] = settled(h)
	}
	l, stuck = h.lane().stick(t)
	l.nonces(false) // what the test says in the backend's place answers none, and on a busy machine one may be due
	held = b.hold("held")
	clients[0].send(cmd("GET", "held"))
	<-held.reached
	stuck.armed.Store(true)
	clients[1].send(cmd("GET", "b"))
	<-stuck.writing
	clients[2].send(strings.Repeat(cmd("GET", "c"), 3))
	eventually(t, "all are in flight", func() bool { return l.inFlight() == 5 })
	if n, free := l.unwritten(); n < 3*len(cmd("GET", "c")) || free {
		t.Fatalf("%d bytes wait for the writer, token free: %v", n, free)
	}
	return h, l, held, stuck, clients
}

// What arrives while somebody writes goes out in the next write, whole and in its order.
func TestWhatArrivesDuringAWriteGoesOutInTheNext(t *testing.T) {
	t.Parallel()
	h, _, held, stuck, clients := waiting(t)
	close(stuck.goOn)
	held.release()
	clients[0].want(valueOf("held"))
	clients[1].want(valueOf("b"))
	clients[2].want(strings.Repeat(valueOf("c"), 3))
	for _, w := range clients {
		w.get("afterwards")
	}
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// A reply that comes before its command is written is none to it.
func TestReplyToWhatIsNotWrittenTakesTheLaneAlong(t *testing.T) {
	t.Parallel()
	h, _, held, stuck, clients := waiting(t)
	held.say(valueOf("held") + valueOf("b") + "+foreign\r\n")
	clients[0].want(valueOf("held"))
	clients[1].want(valueOf("b"))
	clients[2].endsUnanswered()
	h.wantClosed(closeLane, 1)
	close(stuck.fail)
}

// A lane that takes no new work answers what waits.
func TestRetiredLaneAnswersWhatWaits(t *testing.T) {
	t.Parallel()
	h, l, held, stuck, clients := waiting(t)
	l.retire()
	close(stuck.goOn)
	held.release()
	clients[0].want(valueOf("held"))
	clients[1].want(valueOf("b"))
	clients[2].want(strings.Repeat(valueOf("c"), 3))
	<-l.closed()
	clients[1].get("on the next")
	if h.lane() == l {
		t.Error("it is on the retired lane")
	}
}
