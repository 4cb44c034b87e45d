package lane

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
)

// growAbove is the load above which a busy lane is crowded. When all lanes of a key have such a load and one is crowded, the
// key gets another lane, until it has Set.enough. While the backend works on the commands of one lane, the sessions of
// the other get their replies and send again. With fewer commands a second connection costs more than it gains.
const growAbove = 16

// lookAgain is how often a session that may ride none of the open lanes looks whether it may by now, while another one is dialled.
const lookAgain = 5 * time.Millisecond

// Set holds the lanes of one key. Safe for concurrent use.
type Set struct {
	all    *Sets
	key    Key
	most   int                     // limit of its lanes
	enough int                     // lanes that it may get for its load; any beyond are dialled only while a lane is late
	open   atomic.Pointer[[]*Lane] // replaced as a whole, never modified
	slow   atomic.Bool             // commands have taken longer than lateEach since the last Sweep

	refs atomic.Int32 // number of sessions that use it; changes only under Sets.mu

	mu sync.Mutex
	// guarded by mu
	login    backend.Login
	dialing  bool
	paced    bool          // the dial under way waits for a token
	outgoing *Lane         // the lane to retire once the dial under way has succeeded, or nil
	barred   clock.Instant // no lane is dialled before this time
	err      error         // of the last dial
	changed  chan struct{} // closed and replaced when a lane opens or closes, a dial fails or has its token
}

// lanes returns the open lanes. The caller must not modify the result.
func (set *Set) lanes() []*Lane {
	if p := set.open.Load(); p != nil {
		return *p
	}
	return nil
}

// Choose returns a lane for a session that is owed nothing and began at the given time: the first one that is neither late nor
// crowded, so that lanes that are not needed become idle and close. If there is none, or the backend is slow, it returns the
// least loaded lane, or nil if no lane is open that the session may ride. hot
func (set *Set) Choose(begun clock.Instant) *Lane {
	if !set.slow.Load() {
		for _, l := range set.lanes() {
			if !l.late.Load() && !l.held.Load() && !l.crowded() && l.mayCarry(begun) {
				return l
			}
		}
	}
	return set.leastFor(begun)
}

// crowded reports whether the lane is busy and has a load above growAbove. hot
func (l *Lane) crowded() bool { return l.load.Load() > growAbove && l.busy.Load() }

// least returns the lane with the least load, to which MaxCommands are added if the lane is late, and again if it is held. It
// returns nil if no lane is open. hot
func (set *Set) least() *Lane { return set.leastFor(0) }

// leastFor is least among the lanes that a session may ride which began at the given time. hot
func (set *Set) leastFor(begun clock.Instant) *Lane {
	var best *Lane
	var least int32
	for _, l := range set.lanes() {
		if !l.mayCarry(begun) {
			continue
		}
		load := l.load.Load()
		if l.late.Load() {
			load += MaxCommands
		}
		if l.held.Load() {
			load += MaxCommands
		}
		if best == nil || load < least {
			best, least = l, load
		}
	}
	return best
}

// growWith dials another lane if the work of l, which was just used, calls for one (calledFor). It never waits. When the
// backend may have no more connections it does nothing, and leaves the places to sessions that cannot do without one. hot
func (set *Set) growWith(l *Lane) {
	if !set.calledFor(l) || set.all.c.Backend.IsFull() {
		return
	}
	set.openIf(func() bool { return set.calledFor(l) }) // a dial may have ended meanwhile
}

// HasLanes reports whether lanes are open. There may be none among them for a session, see Choose.
func (set *Set) HasLanes() bool { return len(set.lanes()) > 0 }

// Open dials a lane, unless a dial is under way or the key is barred. It never waits.
func (set *Set) Open() { set.openIf(func() bool { return true }) }

// openIf starts a dial of a lane if wanted returns true and the key is not barred. It calls wanted under set.mu, and never
// waits.
func (set *Set) openIf(wanted func() bool) {
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.barred <= set.all.c.Now() && wanted() {
		set.dialLocked(false)
	}
}

// calledFor reports whether the work of l calls for another lane: l is late or crowded, and the least loaded lane is late or
// has a load above growAbove too. More lanes than sessions are of no use, since each session is on one lane at a time. hot
func (set *Set) calledFor(l *Lane) bool {
	n := len(set.lanes())
	if n >= set.most || n >= int(set.refs.Load()) || !l.late.Load() && (n >= set.enough || !l.crowded()) {
		return false
	}
	least := set.least()
	return least != nil && (least.late.Load() || n < set.enough && least.load.Load() > growAbove)
}

// BarredUntil returns the time before which no lane is dialled for the key.
func (set *Set) BarredUntil() clock.Instant {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.barred
}

// Await waits until a lane is open that a session may ride which began at the given time, and returns it. It returns ErrNoLanes
// if the key is barred, errEnded if done was closed, and the error of the last dial after Timeouts.Unavailable, in which the wait
// for a token does not count. A lane that is dialled although the key has as many as it may have takes the place of another one.
func (set *Set) Await(begun clock.Instant, done <-chan struct{}) (*Lane, error) {
	t := time.NewTimer(set.all.c.Unavailable)
	defer t.Stop()
	for {
		set.mu.Lock()
		if l := set.Choose(begun); l != nil {
			set.mu.Unlock()
			return l, nil
		}
		if set.barred > set.all.c.Now() {
			err := ErrNoLanes
			if backend.IsLoading(set.err) {
				err = ErrLoading
			}
			set.mu.Unlock()
			return nil, err
		}
		set.dialLocked(true)
		if all := set.lanes(); set.outgoing == nil && len(all) >= set.most && len(all) > 0 {
			set.outgoing = all[0] // the session may ride none of them
		}
		changed, paced := set.changed, set.paced
		var again <-chan time.Time
		if len(set.lanes()) > 0 {
			again = time.After(lookAgain)
		}
		set.mu.Unlock()
		if paced {
			t.Reset(set.all.c.Unavailable)
		}
		select {
		case <-again:
		case <-changed:
			if paced {
				t.Reset(set.all.c.Unavailable)
			}
		case <-done:
			return nil, errEnded
		case <-t.C:
			if paced {
				t.Reset(set.all.c.Unavailable)
				continue
			}
			set.mu.Lock()
			err := set.err
			set.mu.Unlock()
			if err == nil {
				err = context.DeadlineExceeded
			}
			return nil, err
		}
	}
}

// remove takes l out of the open lanes and wakes the sessions that wait for a lane. It may be called again.
func (set *Set) remove(l *Lane) {
	set.mu.Lock()
	defer set.mu.Unlock()
	old := set.lanes()
	i := slices.Index(old, l)
	if i < 0 {
		return
	}
	lanes := slices.Delete(slices.Clone(old), i, i+1)
	set.open.Store(&lanes)
	close(set.changed)
	set.changed = make(chan struct{})
}

// isLastOfUsed reports whether l is the only lane of its key and sessions use that key.
func (set *Set) isLastOfUsed(l *Lane) bool {
	lanes := set.lanes()
	return len(lanes) == 1 && lanes[0] == l && set.refs.Load() > 0
}
