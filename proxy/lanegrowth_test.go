package proxy

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// crowdOf is two sessions that have more in flight on one lane than calls for another.
type crowdOf struct {
	held  *laneHold
	wires [2]*wire
	want  [2]string
}

// busy has them send it; the backend stops at the first command, on the lane that had least to do.
func (b *laneBackend) busy(h *harness, name string) *crowdOf {
	h.t.Helper()
	const each = growAbove/2 + 100
	c := &crowdOf{held: b.hold(name)}
	for i := range c.wires {
		w := h.dial()
		c.wires[i] = w
		commands, replies := pipelineOf(each, fmt.Sprint(name, "-", i))
		s := h.sessionOf(w)
		if i == 0 {
			w.send(cmd("GET", name))
			<-c.held.reached
			replies = valueOf(name) + replies
		}
		c.want[i] = replies
		go io.WriteString(w, commands) // ends with the bytes, or the connection
		eventually(h.t, "it is in flight", func() bool {
			return s.onLane.commands.Load() >= each && s.hand.Load() == handEmpty
		})
	}
	return c
}

// more puts another command on the busy lane.
func (c *crowdOf) more(h *harness, key string) {
	h.t.Helper()
	s := h.sessionOf(c.wires[1])
	before := s.onLane.commands.Load()
	c.wires[1].send(cmd("GET", key))
	c.want[1] += valueOf(key)
	eventually(h.t, "it is in flight", func() bool { return s.onLane.commands.Load() > before && s.hand.Load() == handEmpty })
}

// release lets the backend go on.
func (c *crowdOf) release() {
	c.held.release()
	for i, w := range c.wires {
		w.wantLong(c.want[i])
	}
}

// notDialling waits until no lane is being opened.
func (set *laneSet) notDialling(t testing.TB) {
	t.Helper()
	eventually(t, "no lane is being opened", func() bool {
		set.mu.Lock()
		defer set.mu.Unlock()
		return !set.dialing
	})
}

func grown(t *testing.T, lanes int) (*laneBackend, *harness) {
	t.Helper()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.Backend.Lanes = lanes })
	w := h.dial()
	w.get("0")
	h.lane()
	return b, h
}

// A lane that is busy gets the key another one, up to the number that is configured. Who has nothing in flight takes the
// one with least to do.
func TestKeyGetsAnotherLaneForItsLoad(t *testing.T) {
	t.Parallel()
	for lanes, most := range map[int]int{0: max(4, runtime.GOMAXPROCS(0)), 1: 1, 3: 3} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			t.Parallel()
			b, h := grown(t, lanes)
			idle := h.dial()
			var all []*crowdOf
			for n := 1; n <= most; n++ {
				all = append(all, b.busy(h, fmt.Sprint("held ", n)))
				want := min(n+1, most)
				eventually(t, fmt.Sprint(want, " lanes"), func() bool { return len(h.openLanes()) >= want })
				h.onlySet().notDialling(t)
				if got := len(h.openLanes()); got != want || b.lanes() != want {
					t.Fatalf("%d lanes are open and %d were, want %d", got, b.lanes(), want)
				}
				if n < most {
					idle.get("not behind the others")
					all[n-1].more(h, "while another has nothing to do")
					h.onlySet().notDialling(t)
					if got := len(h.openLanes()); got != want {
						t.Errorf("%d lanes, though one of %d had nothing to do", got, want)
					}
				}
			}
			for _, c := range slices.Backward(all) {
				c.release()
			}
			if n := len(h.Stats().SessionsClosed); n != 0 || b.lanes() != most {
				t.Errorf("%d lanes, sessions closed: %v", b.lanes(), h.Stats().SessionsClosed)
			}
		})
	}
}

func TestSurplusLanesCloseWhenIdle(t *testing.T) {
	t.Parallel()
	b, h := grown(t, 0)
	w := h.dial()
	crowd := b.busy(h, "first")
	eventually(t, "two lanes", func() bool { return len(h.openLanes()) == 2 })
	first, second := h.openLanes()[0], h.openLanes()[1]
	w.get("on the second")
	crowd.release()
	eventually(t, "both are idle", func() bool {
		_, a := first.idleAt()
		_, b := second.idleAt()
		return a && b
	})
	held := b.hold("still busy")
	w.send(cmd("GET", "still busy")) // on the first of two that have nothing to do
	<-held.reached
	h.pass(laneIdle)
	h.sweepShared()
	<-second.closed
	if first.stateNow() != laneOpen {
		t.Error("a lane closed that was busy")
	}
	held.release()
	w.want(valueOf("still busy"))
	w.get("afterwards")
	if h.lane() != first || b.lanes() != 2 {
		t.Errorf("%d lanes, or another one", b.lanes())
	}
	crowd = b.busy(h, "again")
	eventually(t, "two lanes again", func() bool { return len(h.openLanes()) == 2 })
	w.get("on another one")
	crowd.release()
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// conn is the connection on which a command came; -1: none.
func (b *laneBackend) conn(args ...string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.IndexFunc(b.conns, func(c *laneConn) bool {
		return slices.ContainsFunc(c.got, func(got []string) bool { return slices.Equal(got, args) })
	})
}

// A session reads its own writes: what follows them goes the same way, though there are lanes with less to do.
func TestSessionStaysOnItsLaneWhileItIsOwed(t *testing.T) {
	t.Parallel()
	b, h := grown(t, 2)
	w := h.dial()
	held := b.hold("of the session")
	w.send(cmd("GET", "of the session") + cmd("SET", "k", "v"))
	<-held.reached
	first := h.lane()
	second := first.another(t)
	first.occupy(100)
	s := h.sessionOf(w)
	for i := range 20 {
		key := fmt.Sprint("k", i)
		w.send(cmd("SET", key, "v") + cmd("GET", key))
	}
	eventually(t, "all is on its lane", func() bool { return s.onLane.commands.Load() == 42 })
	if n := second.inFlight(); n != 0 {
		t.Errorf("%d commands are on the other lane", n)
	}
	held.release()
	w.want(valueOf("of the session") + "+OK\r\n")
	for i := range 20 {
		w.want("+OK\r\n" + valueOf(fmt.Sprint("k", i)))
	}
	w.get("with nothing in flight")
	first.occupy(-100)
	one, other := b.conn("GET", "k0"), b.conn("GET", "with nothing in flight")
	if one < 0 || one != b.conn("SET", "k0", "v") || one == other || other < 0 {
		t.Errorf("on connections %d and %d", one, other)
	}
}

// A backend that takes no more connections, or proves no more lanes, is not asked at every command.
func TestLaneThatIsRefusedIsNotAskedForAtOnceAgain(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{"unproven": "-NOPERM no\r\n", "full": "-ERR max number of clients reached\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, h := grown(t, 0)
			b.on(func(c *laneConn, args []string) (string, bool) {
				return reply, c.lane && args[0] == "ECHO" && len(c.commands()) <= 4
			})
			w := h.dial()
			w.get("1")
			l := h.lane()
			l.occupy(growAbove + 1)
			for i := range 20 {
				w.get(fmt.Sprint(i))
				l.set.notDialling(t)
			}
			if n := b.lanes(); n != 2 {
				t.Errorf("%d lanes were asked for, want the one that is refused", n-1)
			}
			if n := strings.Count(h.logs.String(), "each uses its own"); n > 1 {
				t.Errorf("it was said %d times", n)
			}
			b.on(nil)
			h.pass(laneRetry)
			w.get("behind the bar")
			eventually(t, "two lanes", func() bool { return len(h.openLanes()) == 2 })
			l.occupy(-growAbove - 1)
		})
	}
}
