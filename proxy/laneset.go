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

// growAbove: with more commands in flight on its least loaded lane, and a busy one, a key gets another lane, until it has
// laneSet.enough. While the backend works on what one lane brought, the sessions of the other are answered and ask again. With
// fewer commands a second connection costs more than it gains.
const growAbove = 16

// laneKey says who may share a lane: sessions that nothing at the backend tells apart.
type laneKey struct {
	identity   [32]byte
	mapping    [32]byte // of its user, see User.Mapping
	user       string
	credential [32]byte // a new session rides no lane of a password that has been replaced
	db         int
	resp3      bool
	readonly   bool
	unbounded  bool
}

// laneSets has the lanes of each key. Safe for concurrent use.
type laneSets struct {
	server *Server
	mu     sync.Mutex
	sets   map[laneKey]*laneSet // guarded by mu

	live registry[*lane] // that have not ended, retired ones too
}

// close ends every lane at once, whatever its backend owes.
func (a *laneSets) close() {
	for _, l := range a.live.list() {
		l.up.Close()
	}
}

// laneSet is the lanes of one key. Safe for concurrent use.
type laneSet struct {
	server *Server
	key    laneKey
	most   int                     // lanes that it may have
	enough int                     // lanes that it gets for its load alone; the others only help where the backend does not keep up
	open   atomic.Pointer[[]*lane] // never modified
	slow   atomic.Bool             // the backend took long for each command since the sweeper looked last, see pulse

	refs atomic.Int32 // sessions; changed with laneSets.mu

	mu sync.Mutex
	// guarded by mu
	login    backend.Login
	dialing  bool
	paced    bool  // the dial under way waits for a token
	outgoing *lane // to be retired once the dial under way has succeeded; nil: none is
	barred   int64 // until then there are no lanes
	err      error // of the last dial
	changed  chan struct{}
}

// get returns the set of a key to a session, which leaves it later.
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

// tidy forgets the keys that nobody uses and that have no lanes.
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

func (set *laneSet) lanes() []*lane {
	if p := set.open.Load(); p != nil {
		return *p
	}
	return nil
}

// choose returns a lane for a session that is owed nothing: the first one with room to spare, so that those that are not
// needed become idle and close. Where there is none, or the backend takes long for each command, the one with the least in
// flight; nil: none is open. hot
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

// crowded reports whether the lane is busy with many commands. hot
func (l *lane) crowded() bool { return l.load.Load() > growAbove && l.busy.Load() }

// least is the lane with the least in flight among those whose backend keeps up, or else among all; nil: none is open. hot
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

// growWith opens another lane where the one just used is busy, none has little to do and there may be more. It takes no place
// from those who need one where the backend may have no more connections. hot
func (set *laneSet) growWith(l *lane) {
	if !set.calledFor(l) || set.server.backend.IsFull() {
		return
	}
	set.openIf(func() bool { return set.calledFor(l) }) // a dial may have ended meanwhile
}

// openAnother opens another lane for those who would wait behind a reply that takes l for long, unless there is one already.
func (set *laneSet) openAnother(l *lane) {
	set.openIf(func() bool { return len(set.lanes()) < set.most && set.least() == l })
}

// openIf has a lane dialled if wanted, which is called under set.mu, says so and the key is not barred. It never waits.
func (set *laneSet) openIf(wanted func() bool) {
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.barred <= set.server.now() && wanted() {
		set.dialLocked(false)
	}
}

// calledFor reports whether the work of l calls for another lane. There is no use in more lanes than sessions, each of which is
// on one at a time. hot
func (set *laneSet) calledFor(l *lane) bool {
	n := len(set.lanes())
	if n >= set.most || n >= int(set.refs.Load()) || !l.late.Load() && (n >= set.enough || !l.crowded()) {
		return false
	}
	least := set.least()
	return least != nil && (least.late.Load() || n < set.enough && least.load.Load() > growAbove)
}

// barredUntil tells how long the key has no lanes.
func (set *laneSet) barredUntil() int64 {
	set.mu.Lock()
	defer set.mu.Unlock()
	return set.barred
}

// await waits for a lane, at most unavailableTimeout; the wait for a token does not count. done ends the wait.
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

// remove takes a lane out of the choice.
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

func (l *lane) transactions() bool { return l.up.Transactions() }

// laneKey is that of the session as it is now.
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
