package proxy

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/backend"
)

// growAbove is the load above which a busy lane is crowded. When all lanes of a key have such a load and one is crowded, the
// key gets another lane, until it has laneSet.enough. While the backend works on the commands of one lane, the sessions of
// the other get their replies and send again. With fewer commands a second connection costs more than it gains.
const growAbove = 16

// laneKey decides which sessions may share a lane: those that the backend could not tell apart.
type laneKey struct {
	identity   [32]byte
	mapping    [32]byte // of the client's user, see User.Mapping
	user       string
	credential [32]byte // digest of user and password: a new session must not ride a lane of a password that was replaced
	db         int
	resp3      bool
	readonly   bool
	unbounded  bool
}

// laneSets holds the set of lanes of each key. Safe for concurrent use.
type laneSets struct {
	server *Server
	mu     sync.Mutex
	sets   map[laneKey]*laneSet // guarded by mu

	live registry[*lane] // lanes that have not ended, retired ones included
}

// close closes every lane at once, even those that owe replies.
func (a *laneSets) close() {
	for _, l := range a.live.list() {
		l.up.Close()
	}
}

// laneSet holds the lanes of one key. Safe for concurrent use.
type laneSet struct {
	server *Server
	key    laneKey
	most   int                     // limit of its lanes
	enough int                     // lanes that it may get for its load; any beyond are dialled only while a lane is late
	open   atomic.Pointer[[]*lane] // replaced as a whole, never modified
	slow   atomic.Bool             // commands have taken longer than lateEach since the sweeper's last round

	refs atomic.Int32 // number of sessions that use it; changes only under laneSets.mu

	mu sync.Mutex
	// guarded by mu
	login    backend.Login
	dialing  bool
	paced    bool          // the dial under way waits for a token
	outgoing *lane         // the lane to retire once the dial under way has succeeded, or nil
	barred   int64         // no lane is dialled before this time
	err      error         // of the last dial
	changed  chan struct{} // closed and replaced when a lane opens or closes, a dial fails or has its token
}

// get returns the set of a key for a session to use. The session must call leave when it no longer does.
func (a *laneSets) get(key laneKey, l backend.Login) *laneSet {
	a.mu.Lock()
	defer a.mu.Unlock()
	set := a.sets[key]
	if set == nil {
		most, enough := a.server.c.Backend.Lanes, a.server.c.Backend.Lanes
		if most == 0 {
			most, enough = max(4, runtime.GOMAXPROCS(0)), max(2, runtime.GOMAXPROCS(0)/2)
		}
		set = &laneSet{server: a.server, key: key, most: most, enough: enough, changed: make(chan struct{})}
		if a.sets == nil {
			a.sets = make(map[laneKey]*laneSet)
		}
		a.sets[key] = set
	}
	set.refs.Add(1)
	set.mu.Lock()
	set.login = l
	set.mu.Unlock()
	return set
}

// leave ends a session's use of a set, see get.
func (a *laneSets) leave(set *laneSet) {
	a.mu.Lock()
	set.refs.Add(-1)
	a.mu.Unlock()
}

// each calls f for every open lane.
func (a *laneSets) each(f func(*lane)) {
	a.mu.Lock()
	sets := make([]*laneSet, 0, len(a.sets))
	for _, set := range a.sets {
		sets = append(sets, set)
	}
	a.mu.Unlock()
	for _, set := range sets {
		for _, l := range set.lanes() {
			f(l)
		}
	}
}

// tidy forgets the sets that no session uses, that have no lanes and whose lanes are not barred.
func (a *laneSets) tidy(now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, set := range a.sets {
		set.mu.Lock()
		unused := set.refs.Load() == 0 && !set.dialing && set.barred <= now && len(set.lanes()) == 0
		set.mu.Unlock()
		if unused {
			delete(a.sets, key)
		}
	}
}

// lanes returns the open lanes. The caller must not modify the result.
func (set *laneSet) lanes() []*lane {
	if p := set.open.Load(); p != nil {
		return *p
	}
	return nil
}

// choose returns a lane for a session that is owed nothing: the first one that is neither late nor crowded, so that lanes
// that are not needed become idle and close. If there is none, or the backend is slow, it returns the least loaded lane, or
// nil if no lane is open. hot
func (set *laneSet) choose() *lane {
	if !set.slow.Load() {
		for _, l := range set.lanes() {
			if !l.late.Load() && !l.crowded() {
				return l
			}
		}
	}
	return set.least()
}

// crowded reports whether the lane is busy and has a load above growAbove. hot
func (l *lane) crowded() bool { return l.load.Load() > growAbove && l.busy.Load() }

// least returns the lane with the least load, to which laneCommands are added if the lane is late. It returns nil if no lane
// is open. hot
func (set *laneSet) least() *lane {
	var best *lane
	var least int32
	for _, l := range set.lanes() {
		load := l.load.Load()
		if l.late.Load() {
			load += laneCommands
		}
		if best == nil || load < least {
			best, least = l, load
		}
	}
	return best
}

// growWith dials another lane if the work of l, which was just used, calls for one (calledFor). It never waits. When the
// backend may have no more connections it does nothing, and leaves the places to sessions that cannot do without one. hot
func (set *laneSet) growWith(l *lane) {
	if !set.calledFor(l) || set.server.backend.IsFull() {
		return
	}
	set.openIf(func() bool { return set.calledFor(l) }) // a dial may have ended meanwhile
}

// openAnother dials another lane for the sessions that would wait while l carries a big reply, unless a less loaded lane is
// open.
func (set *laneSet) openAnother(l *lane) {
	set.openIf(func() bool { return len(set.lanes()) < set.most && set.least() == l })
}

// openIf starts a dial of a lane if wanted returns true and the key is not barred. It calls wanted under set.mu, and never
// waits.
func (set *laneSet) openIf(wanted func() bool) {
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.barred <= set.server.now() && wanted() {
		set.dialLocked(false)
	}
}

// calledFor reports whether the work of l calls for another lane: l is late or crowded, and the least loaded lane is late or
// has a load above growAbove too. More lanes than sessions are of no use, since each session is on one lane at a time. hot
func (set *laneSet) calledFor(l *lane) bool {
	n := len(set.lanes())
	if n >= set.most || n >= int(set.refs.Load()) || !l.late.Load() && (n >= set.enough || !l.crowded()) {
		return false
	}
	least := set.least()
	return least != nil && (least.late.Load() || n < set.enough && least.load.Load() > growAbove)
}

// barredUntil returns the time before which no lane is dialled for the key.
func (set *laneSet) barredUntil() int64 {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.barred
}

// await waits until a lane is open and returns it. It returns errNoLanes if the key is barred, errEnded if done was closed,
// and the error of the last dial after unavailableTimeout, in which the wait for a token does not count.
func (set *laneSet) await(done <-chan struct{}) (*lane, error) {
	t := time.NewTimer(set.server.c.unavailableTimeout)
	defer t.Stop()
	for {
		set.mu.Lock()
		if l := set.choose(); l != nil {
			set.mu.Unlock()
			return l, nil
		}
		if set.barred > set.server.now() {
			set.mu.Unlock()
			return nil, errNoLanes
		}
		set.dialLocked(true)
		changed, paced := set.changed, set.paced
		set.mu.Unlock()
		if paced {
			t.Reset(set.server.c.unavailableTimeout)
		}
		select {
		case <-changed:
			if paced {
				t.Reset(set.server.c.unavailableTimeout)
			}
		case <-done:
			return nil, errEnded
		case <-t.C:
			if paced {
				t.Reset(set.server.c.unavailableTimeout)
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
func (set *laneSet) remove(l *lane) {
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

// transactions reports whether l may carry transactions: the backend ran an empty one when the lane was dialled.
func (l *lane) transactions() bool { return l.up.Transactions() }

// laneKey returns the lane key of the session in its present state, and the login with which such a lane is dialled.
func (s *session) laneKey(unbounded bool) (key laneKey, l backend.Login) {
	p := s.peer.Load()
	l = s.login()
	l.Proof, l.Account = backend.WithTransactions, nil
	s.pump.mu.Lock()
	st := s.state
	s.pump.mu.Unlock()
	l.State = backend.State{Database: st.Database, RESP3: st.RESP3, ReadOnly: st.ReadOnly}
	key = laneKey{identity: p.Identity, credential: s.credential, db: st.Database, resp3: st.RESP3, readonly: st.ReadOnly, unbounded: unbounded}
	if p.User != nil {
		key.user, key.mapping = p.User.Name, p.User.Mapping
	}
	return key, l
}
