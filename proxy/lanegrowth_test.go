package proxy

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// crowdOf is a session that has more in flight on one lane than calls for another.
type crowdOf struct {
	held *laneHold
	wire *wire
	want string
}

// busy has it send that; the backend stops at the first command, on the lane that had least to do.
func (b *laneBackend) busy(h *harness, name string) *crowdOf {
	h.t.Helper()
	c := &crowdOf{held: b.hold(name), wire: h.dial()}
	s := h.sessionOf(c.wire)
	c.wire.send(cmd("GET", name))
	<-c.held.reached
	for _, l := range h.openLanes() {
		l.hasBeenBusy()
	}
	commands, replies := pipelineOf(growAbove+1, name)
	c.wire.send(commands)
	c.want = valueOf(name) + replies
	eventually(h.t, "it is in flight", func() bool {
		return s.commandsOnLanes() > growAbove && s.holds.Load() == holdsNothing
	})
	return c
}

// more puts another command on the busy lane.
func (c *crowdOf) more(h *harness, key string) {
	h.t.Helper()
	s := h.sessionOf(c.wire)
	before := s.commandsOnLanes()
	c.wire.send(cmd("GET", key))
	c.want += valueOf(key)
	eventually(h.t, "it is in flight", func() bool { return s.commandsOnLanes() > before && s.holds.Load() == holdsNothing })
}

// release lets the backend go on.
func (c *crowdOf) release() {
	c.held.release()
	c.wire.wantLong(c.want)
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

// A lane that is busy gets the key another one, up to the number that is configured. A session that has nothing in flight
// takes the one with least to do.
func TestKeyGetsAnotherLaneForItsLoad(t *testing.T) {
	t.Parallel()
	for lanes, most := range map[int]int{0: max(2, runtime.GOMAXPROCS(0)/2), 1: 1, 3: 3} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			t.Parallel()
			b, h := grown(t, lanes)
			idle := h.dial()
			all := fill(t, b, h, most, idle)
			for _, c := range slices.Backward(all) {
				c.release()
			}
			if n := len(h.Stats().SessionsClosed); n != 0 || b.lanes() != most {
				t.Errorf("%d lanes, sessions closed: %v", b.lanes(), h.Stats().SessionsClosed)
			}
		})
	}
}

// A session is on one lane at a time: a key has no use for more lanes than it has sessions, whatever these send.
func TestKeyHasNoMoreLanesThanSessions(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.Backend.Lanes, c.lateAfter = 0, 2*time.Millisecond })
	crowd := b.busy(h, "held")
	h.ahead.Add(20 * time.Millisecond) // and the backend is late
	crowd.more(h, "behind it")
	h.onlySet().notDialling(t)
	crowd.release()
	if n := b.lanes(); n != 1 {
		t.Errorf("%d lanes for one session", n)
	}
	other := h.dial()
	crowd.held = b.hold("held again")
	crowd.wire.send(cmd("GET", "held again"))
	<-crowd.held.reached
	h.ahead.Add(20 * time.Millisecond)
	other.send(cmd("GET", "behind the other"))
	eventually(t, "a lane for another session", func() bool { return b.lanes() == 2 })
	crowd.held.release()
	crowd.wire.want(valueOf("held again"))
	other.want(valueOf("behind the other"))
}

// Where all places of BACKEND_MAX_CONNECTIONS are taken, a busy key takes none from others for another lane.
func TestKeyGetsAnotherLaneOnlyWhereThereIsAPlace(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.Backend.Lanes, c.Backend.MaxConnections = 3, 2 })
	own := h.dial()
	own.do(bulk("info"), "INFO")
	s := h.sessionOf(own)
	eventually(t, "its connection is idle", func() bool { _, idle := s.ownIdleAt(); return idle })
	h.dial().get("0")
	crowd := b.busy(h, "held")
	crowd.more(h, "and more")
	h.onlySet().notDialling(t)
	if n := b.lanes(); n != 1 || !s.hasOwn() {
		t.Errorf("%d lanes, the session has its own connection still: %v", n, s.hasOwn())
	}
	crowd.release()
	own.do(bulk("info"), "INFO")
	if n := len(b.connsWith(false, "INFO")); n != 1 {
		t.Errorf("%d own connections, want 1", n)
	}
}

// fill has crowds of sessions open one lane after the other, up to most, while idle asks beside them.
func fill(t *testing.T, b *laneBackend, h *harness, most int, idle *wire) (all []*crowdOf) {
	t.Helper()
	for n := len(h.openLanes()); n <= most; n++ {
		all = append(all, b.busy(h, fmt.Sprint("held ", n)))
		want := min(n+1, most)
		eventually(t, fmt.Sprint(want, " lanes"), func() bool { return len(h.openLanes()) >= want })
		h.onlySet().notDialling(t)
		if got := len(h.openLanes()); got != want || b.lanes() != want {
			t.Fatalf("%d lanes are open and %d were, want %d", got, b.lanes(), want)
		}
		if n < most {
			idle.get("not behind the others")
			all[len(all)-1].more(h, "while another has nothing to do")
			h.onlySet().notDialling(t)
			if got := len(h.openLanes()); got != want {
				t.Errorf("%d lanes, though one of %d had nothing to do", got, want)
			}
		}
	}
	return all
}

// Where the backend does not keep up with the lanes that there are, there come more than load alone calls for.
func TestKeyGetsAnotherLaneForALateBackend(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.Backend.Lanes, c.lateAfter = 0, 2*time.Millisecond })
	w := h.dial()
	w.get("0")
	most := h.onlySet().most()
	if most < 4 {
		t.Fatalf("%d lanes at most", most)
	}
	var helds []*laneHold
	var wires []*wire
	for n := 1; n <= most; n++ { // each takes the lane that owes nothing, and another is opened for the next
		key := fmt.Sprint("held ", n)
		held, w := b.hold(key), h.dial()
		w.send(cmd("GET", key))
		<-held.reached
		helds, wires = append(helds, held), append(wires, w)
		if n == most {
			break
		}
		h.ahead.Add(20 * time.Millisecond) // nothing was answered meanwhile
		s := h.sessionOf(w)
		w.send(cmd("GET", "behind it"))
		eventually(t, "it is in flight", func() bool { return s.commandsOnLanes() == 2 })
		eventually(t, fmt.Sprint(n+1, " lanes"), func() bool { return len(h.openLanes()) == n+1 })
	}
	if n := b.lanes(); n != most {
		t.Errorf("%d lanes", n)
	}
	for i, held := range helds {
		held.release()
		wires[i].want(valueOf(fmt.Sprint("held ", i+1)))
		if i < most-1 {
			wires[i].want(valueOf("behind it"))
		}
	}
	w.get("afterwards")
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// A session that sends slow commands moves to lanes of such, once there is one; those on the lane that it leaves do not wait
// for it any more. It returns when it has sent none for slowMemory.
func TestSessionWithSlowCommandsRidesApart(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.slowCommand = slowMemory / 6 })
	slow, quick := h.dial(), h.dial()
	slow.get("0")
	quick.get("1")
	ask := func() {
		held := b.hold("slow")
		slow.send(cmd("GET", "slow"))
		<-held.reached
		h.ahead.Add(slowMemory / 3)
		held.release()
		slow.want(valueOf("slow"))
	}
	ask()
	slow.get("once is not enough")
	if n := b.lanes(); n != 1 {
		t.Errorf("%d lanes after one slow command", n)
	}
	ask()
	slow.get("has a lane dialled")
	eventually(t, "a lane apart", func() bool { return b.lanes() == 2 })
	held := b.hold("slow again")
	eventually(t, "it rides there", func() bool {
		slow.get("next")
		return b.conn("GET", "next") >= 0 && len(b.connsWith(true, "GET")) == 2
	})
	slow.send(cmd("GET", "slow again"))
	<-held.reached
	quick.get("meanwhile")
	held.release()
	slow.want(valueOf("slow again"))
	h.pass(slowMemory)
	slow.get("returned")
	if b.conn("GET", "returned") != b.conn("GET", "0") {
		t.Error("it did not return")
	}
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// Where the backend is far away every command takes long, and no session is slow for that.
func TestNoSessionIsSlowForTheWayToTheBackend(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.slowCommand = slowMemory / 6 })
	w := h.dial()
	w.get("on the lane")
	l := h.lane()
	l.locked(func() { l.up().Trip = slowMemory / 5 })
	for i := range 4 {
		key := fmt.Sprint(i)
		held := b.hold(key)
		w.send(cmd("GET", key))
		<-held.reached
		h.ahead.Add(slowMemory / 5)
		held.release()
		w.want(valueOf(key))
	}
	w.get("afterwards")
	if s := h.sessionOf(w); s.seat.SlowUntil() != 0 || b.lanes() != 1 {
		t.Errorf("it rides apart, %d lanes", b.lanes())
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
	h.sweepUnused()
	<-second.closed()
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
	first.hasBeenBusy()
	s := h.sessionOf(w)
	for i := range 20 {
		key := fmt.Sprint("k", i)
		w.send(cmd("SET", key, "v") + cmd("GET", key))
	}
	eventually(t, "all is on its lane", func() bool { return s.commandsOnLanes() == 42 })
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
				return reply, c.lane && args[0] == "ECHO" && len(c.commands()) <= 5
			})
			w := h.dial()
			w.get("1")
			l := h.lane()
			l.occupy(growAbove + 1)
			l.hasBeenBusy()
			for i := range 20 {
				w.get(fmt.Sprint(i))
				l.set().notDialling(t)
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
