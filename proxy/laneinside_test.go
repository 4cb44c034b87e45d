package proxy

import (
	"container/list"
	"context"
	"errors"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/lane"
	"dragontls/proxy/netio"
)

// What tests of sessions on lanes look at, and bring about, inside of package lane: its fields are not exported, and none
// needs to be for the sake of tests. A field is reached by its name, so that a test fails at once where that has changed.

// aLane is a lane as tests see it.
type aLane struct{ *lane.Lane }

// aSet is the set of lanes of a key.
type aSet struct{ *lane.Set }

// inside returns the field of a struct at a path of names. It follows pointers on the way.
func inside[T any](of any, path string) *T {
	v := reflect.ValueOf(of).Elem()
	for name := range strings.SplitSeq(path, ".") {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v = v.FieldByName(name); !v.IsValid() {
			panic("no field " + path)
		}
	}
	if v.Type() != reflect.TypeFor[T]() {
		panic("the field " + path + " is of another type")
	}
	return (*T)(v.Addr().UnsafePointer())
}

// The states of a lane.
type laneState uint8

const (
	laneOpen laneState = iota
	laneRetired
	laneFailed
)

// The limits of lanes, and what makes them grow.
const (
	laneCommands  = lane.MaxCommands
	laneBytes     = lane.MaxBytes
	laneShare     = lane.Shares
	maxLaneReply  = lane.MaxReply
	nonceCommands = 1024
	nonceInterval = 100 * time.Millisecond
	growAbove     = 16
	busyWindow    = 50 * time.Millisecond
	slowMemory    = time.Minute
)

func (l aLane) retire() { l.Retire() }

func (l aLane) idleAt() (since clock.Instant, idle bool) { return l.Idle() }

func (l aLane) set() aSet { return aSet{*inside[*lane.Set](l.Lane, "set")} }

func (l aLane) up() *backend.Conn { return *inside[*backend.Conn](l.Lane, "up") }

func (l aLane) closed() <-chan struct{} { return *inside[chan struct{}](l.Lane, "closed") }

func (l aLane) pushed() bool { return inside[atomic.Bool](l.Lane, "pushed").Load() }

// locked calls f with the lane's lock.
func (l aLane) locked(f func()) {
	mu := inside[sync.Mutex](l.Lane, "mu")
	mu.Lock()
	defer mu.Unlock()
	f()
}

// now returns an integer that the lane's lock guards.
func (l aLane) now(field string) (n int) {
	l.locked(func() { n = *inside[int](l.Lane, field) })
	return n
}

// inFlight is the number of commands in flight.
func (l aLane) inFlight() int { return l.now("commands") }

func (l aLane) howManyWait() (n int) {
	l.locked(func() { n = inside[list.List](l.Lane, "waiters").Len() })
	return n
}

func (l aLane) stateNow() (s laneState) {
	l.locked(func() { s = laneState(reflect.ValueOf(l.Lane).Elem().FieldByName("state").Uint()) })
	return s
}

// eachSlotLocked calls f with each slot of the lane's ring.
func (l aLane) eachSlotLocked(f func(slot reflect.Value)) {
	slots := reflect.ValueOf(l.Lane).Elem().FieldByName("slots")
	all, head := slots.FieldByName("all"), int(slots.FieldByName("head").Int())
	for i := range int(slots.FieldByName("n").Int()) {
		f(all.Index((head + i) & (all.Len() - 1)))
	}
}

// written is how many commands in flight were passed to a write: these may have run where the lane is lost.
func (l aLane) written() (n int) {
	l.locked(func() {
		n = *inside[int](l.Lane, "commands")
		l.eachSlotLocked(func(slot reflect.Value) {
			if !slot.FieldByName("seat").IsNil() && slot.FieldByName("at").Uint() >= *inside[uint64](l.Lane, "passed") {
				n -= int(slot.FieldByName("n").Int())
			}
		})
	})
	return n
}

// seats lists the sessions in flight, each once.
func (l aLane) seats() (all []uintptr) {
	l.locked(func() {
		l.eachSlotLocked(func(slot reflect.Value) {
			if s := slot.FieldByName("seat").Pointer(); s != 0 && !slices.Contains(all, s) {
				all = append(all, s)
			}
		})
	})
	return all
}

// unwritten returns how many bytes wait for the lane's writer, and whether the token is free.
func (l aLane) unwritten() (n int, free bool) {
	l.locked(func() {
		out := reflect.ValueOf(l.Lane).Elem().FieldByName("out")
		n = out.FieldByName("copied").Len()
		for i := range out.FieldByName("chunks").Len() {
			n += out.FieldByName("chunks").Index(i).FieldByName("b").Len()
		}
		free = !*inside[bool](l.Lane, "token")
	})
	return n, free
}

// nonces lets every batch carry one from here on, or none.
func (l aLane) nonces(always bool) {
	l.locked(func() {
		*inside[clock.Instant](l.Lane, "nonceAt") = map[bool]clock.Instant{false: math.MaxInt64, true: math.MinInt64 / 2}[always]
	})
}

// occupy makes a lane look as if so many more commands were in flight on it.
func (l aLane) occupy(n int) {
	l.locked(func() {
		commands := inside[int](l.Lane, "commands")
		*commands += n
		inside[atomic.Int32](l.Lane, "load").Store(int32(*commands + *inside[int](l.Lane, "waiting")))
	})
	l.StopWaiting(new(lane.Seat)) // wakes the first one
}

// hasBeenBusy has the lane be busy as long as it has something in flight.
func (l aLane) hasBeenBusy() {
	inside[atomic.Bool](l.Lane, "busy").Store(true)
	l.locked(func() {
		now := *inside[func() clock.Instant](l.Lane, "set.all.c.Now")
		*inside[clock.Instant](l.Lane, "pulse.window"), *inside[time.Duration](l.Lane, "pulse.idle") = now().Add(-busyWindow), 0
	})
}

func (set aSet) most() int { return *inside[int](set.Set, "most") }

func (set aSet) lanes() (all []aLane) {
	if p := inside[atomic.Pointer[[]*lane.Lane]](set.Set, "open").Load(); p != nil {
		for _, l := range *p {
			all = append(all, aLane{l})
		}
	}
	return all
}

func (set aSet) isDialling() bool {
	mu := inside[sync.Mutex](set.Set, "mu")
	mu.Lock()
	defer mu.Unlock()
	return *inside[bool](set.Set, "dialing")
}

// notDialling waits until no lane is being opened.
func (set aSet) notDialling(t testing.TB) {
	t.Helper()
	eventually(t, "no lane is being opened", func() bool { return !set.isDialling() })
}

// onlySet is the lanes of the only key that sessions use now.
func (h *harness) onlySet() (found aSet) {
	h.t.Helper()
	mu := inside[sync.Mutex](h.lanes, "mu")
	mu.Lock()
	defer mu.Unlock()
	for _, set := range *inside[map[lane.Key]*lane.Set](h.lanes, "sets") {
		if inside[atomic.Int32](set, "refs").Load() > 0 {
			if found.Set != nil {
				h.t.Fatal("more than one key")
			}
			found = aSet{set}
		}
	}
	return found
}

// openLanes lists the lanes that take work.
func (h *harness) openLanes() (all []aLane) {
	h.lanes.Each(func(l *lane.Lane) { all = append(all, aLane{l}) })
	return all
}

// lane is the only open one.
func (h *harness) lane() aLane {
	h.t.Helper()
	all := h.openLanes()
	if len(all) != 1 {
		h.t.Fatalf("%d lanes are open, want 1", len(all))
	}
	return all[0]
}

// another opens one more lane beside those that there are.
func (l aLane) another(t testing.TB) (next aLane) {
	t.Helper()
	set := l.set()
	before := len(set.lanes())
	eventually(t, "another lane", func() bool {
		dialling := set.isDialling()
		if all := set.lanes(); len(all) > before {
			next = all[before]
			return true
		}
		if !dialling {
			set.Open()
		}
		return false
	})
	return next
}

// replaceWith opens a lane in the place of this one; change sees its connection before the lane's goroutines do.
func (l aLane) replaceWith(t testing.TB, change func(*backend.Conn)) aLane {
	t.Helper()
	l.set().notDialling(t)
	dial := inside[func(context.Context, backend.Login) (*backend.Conn, error)](l.Lane, "set.all.c.Dial")
	before := *dial
	*dial = func(ctx context.Context, login backend.Login) (*backend.Conn, error) {
		up, err := before(ctx, login)
		if err == nil {
			change(up)
		}
		return up, err
	}
	next := l.another(t)
	l.set().notDialling(t)
	*dial = before
	l.retire()
	return next
}

// stuckWrite is the fault of one write that takes nothing until the test has it fail or go on.
type stuckWrite struct {
	*faulty
	writing chan struct{} // closed when something is written
	fail    chan struct{}
	goOn    chan struct{}
}

// stick opens a lane in the place of this one whose writer, not a session, makes such a write once it is armed.
func (l aLane) stick(t testing.TB) (aLane, *stuckWrite) {
	t.Helper()
	s := &stuckWrite{writing: make(chan struct{}), fail: make(chan struct{}), goOn: make(chan struct{})}
	next := l.replaceWith(t, func(up *backend.Conn) {
		s.faulty = &faulty{Conn: up.Stream, fault: func() error {
			s.armed.Store(false)
			close(s.writing)
			select {
			case <-s.fail:
				return errors.New("on purpose")
			case <-s.goOn:
				return nil
			case <-t.Context().Done(): // the test has failed
				return errors.New("over")
			}
		}}
		up.Stream = s.faulty
	})
	return next, s
}

// faulty is what a lane's writer writes to. It passes everything on until it is armed: then each write waits for fault, and
// fails with its error.
type faulty struct {
	net.Conn
	armed atomic.Bool
	fault func() error
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.armed.Load() {
		if err := f.fault(); err != nil {
			return 0, err
		}
	}
	return f.Conn.Write(p)
}

// commandsOnLanes and bytesOnLanes are what a session has in flight on lanes.
func (s *session) commandsOnLanes() int { return int(inside[atomic.Int32](&s.seat, "commands").Load()) }

func (s *session) bytesOnLanes() int { return int(inside[atomic.Int32](&s.seat, "bytes").Load()) }

// ridesOneLane makes a lane of an open connection, and a session that is to ride it. Nobody writes to its client.
func ridesOneLane(t testing.TB, srv *Server, conn net.Conn) (*session, aLane) {
	t.Helper()
	c := srv.laneConfig()
	c.Dial = func(_ context.Context, login backend.Login) (*backend.Conn, error) {
		sock, err := netio.NewSocket(conn, login.Account, 0)
		c := &backend.Conn{}
		c.Carry(sock, nil)
		return c, err
	}
	srv.lanes = lane.New(c)
	s := &session{server: srv, stripe: &srv.stripes[0]}
	s.client.settings = srv.settings.Load()
	s.queue.init(srv.buffers.NewAccount())
	s.queue.out, s.queue.turn = &outbox{account: s.account(), most: s.client.settings.sessionBuffer}, true
	s.seat.Rider, s.client.out.Account = s, s.account()
	l, err := srv.lanes.Get(lane.Key{}, backend.Login{}).Await(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, aLane{l}
}
