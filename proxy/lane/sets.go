package lane

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// Config is what lanes are given once. All fields are required, but for Lanes.
type Config struct {
	Lanes int // most lanes of one key; 0: grows with load from 1 to max(4, GOMAXPROCS)

	Backend *backend.Backend
	Dial    func(context.Context, backend.Login) (*backend.Conn, error) // that of Backend
	Buffers *netio.Buffers
	// CloseAccount closes the account of a lane that has ended.
	CloseAccount func(*netio.Account)

	Now      func() clock.Instant
	Done     <-chan struct{} // closed when no lane may be dialled any more; Sets.Close follows
	Running  *sync.WaitGroup // counts the goroutines of lanes
	Panicked func(v any)     // called in a goroutine that has panicked
	Log      zerolog.Logger

	Timeouts
}

// Timeouts are how long lanes wait for others, and how long they are kept.
type Timeouts struct {
	Unavailable time.Duration // how long a command waits for a lane, without the wait for a token
	Stuck       time.Duration // how long a lane's reader goes on reading replies after a failed write
	LateAfter   time.Duration // how long a lane may take for a reply before it can be late, see lateEach
	SlowCommand time.Duration // how long a command may keep the backend, without the round trip, before it counts as slow
	Idle        time.Duration // how long a lane may be idle before it is closed
	// Stay is how long the last lane of a key that sessions use may be idle, while the backend has connections to spare.
	Stay     time.Duration
	Unproven time.Duration // how long a lane without credentials lives
	// Held is how long a lane may owe its oldest reply before commands that only read leave it, and Silent how long before it takes no
	// more work, where the backend answers on a new connection, see Sets.Watch. Ask is the least time between two such connections.
	Held, Silent, Ask time.Duration
	// Retry is how long a key has no lanes after a dial whose error barsLanes reports, BusyRetry the same for a backend that
	// takes no new connection at the moment.
	Retry, BusyRetry time.Duration
}

// Key decides which sessions may share a lane: those that the backend could not tell apart.
type Key struct {
	Identity   [32]byte
	Mapping    [32]byte // of the client's user
	User       string
	Credential [32]byte // digest of user and password: a new session must not ride a lane of a password that was replaced
	Database   int
	RESP3      bool
	ReadOnly   bool
	Unbounded  bool
	Reads      bool // for commands that only read, while another lane is held
}

// ErrNoLanes means that no lane of a key may be dialled now, see Set.BarredUntil.
var ErrNoLanes = errors.New("no lanes for this session now")

// ErrLoading is ErrNoLanes where the reason is that the backend is loading its data.
var ErrLoading = fmt.Errorf("%w: the backend is loading", ErrNoLanes)

var errEnded = errors.New("session ended")

// Sets holds the set of lanes of each key. Safe for concurrent use.
type Sets struct {
	c    Config
	mu   sync.Mutex
	sets map[Key]*Set // guarded by mu

	live  sync.Map // of *Lane: lanes that have not ended, retired ones included
	count atomic.Int64

	nextAsk clock.Instant // belongs to the goroutine that calls Watch
}

// New returns Sets without lanes.
func New(c Config) *Sets { return &Sets{c: c, sets: make(map[Key]*Set)} }

// Close closes every lane at once, even those that owe replies. Config.Done must be closed.
func (a *Sets) Close() {
	for _, l := range a.Live() {
		l.up.Close()
	}
}

// Live returns the lanes that have not ended, retired ones included.
func (a *Sets) Live() []*Lane {
	var all []*Lane
	a.live.Range(func(l, _ any) bool {
		all = append(all, l.(*Lane))
		return true
	})
	return all
}

// Count returns the number of lanes that have not ended.
func (a *Sets) Count() int { return int(a.count.Load()) }

// Get returns the set of a key for a session to use, whose next lane is dialled with l. The session must call Leave when it no
// longer does.
func (a *Sets) Get(key Key, l backend.Login) *Set {
	a.mu.Lock()
	defer a.mu.Unlock()
	set := a.sets[key]
	if set == nil {
		most, enough := a.c.Lanes, a.c.Lanes
		if most == 0 {
			most, enough = max(4, runtime.GOMAXPROCS(0)), max(2, runtime.GOMAXPROCS(0)/2)
		}
		set = &Set{all: a, key: key, most: most, enough: enough, changed: make(chan struct{})}
		a.sets[key] = set
	}
	set.refs.Add(1)
	set.mu.Lock()
	set.login = l
	set.mu.Unlock()
	return set
}

// Leave ends a session's use of a set, see Get.
func (a *Sets) Leave(set *Set) {
	a.mu.Lock()
	set.refs.Add(-1)
	a.mu.Unlock()
}

// Each calls f for every lane that is open to sessions.
func (a *Sets) Each(f func(*Lane)) {
	a.mu.Lock()
	sets := make([]*Set, 0, len(a.sets))
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

// sheddingAfter is how long a lane is idle before it gives its buffers back.
const sheddingAfter = time.Second

// Sweep closes lanes that no session has used for a while, replaces those that have carried a push, has idle ones give back
// their buffers, and forgets sets that nobody uses. It is called at intervals.
func (a *Sets) Sweep(now clock.Instant) {
	spare := a.c.Backend.HasSpare()
	a.Each(func(l *Lane) {
		l.set.slow.Store(false)
		since, idle := l.Idle()
		stays := a.c.Idle
		if spare && l.set.isLastOfUsed(l) {
			stays = a.c.Stay
		}
		switch {
		case idle && now.Sub(since) >= stays || !l.up.Authenticated() && now.Sub(l.opened) >= a.c.Unproven:
			l.Retire()
		case l.pushed.Load():
			l.set.renew(l)
		case idle && now.Sub(since) >= sheddingAfter:
			l.shed()
		}
	})
	a.tidy(now)
}

// tidy forgets the sets that no session uses, that have no lanes and whose lanes are not barred.
func (a *Sets) tidy(now clock.Instant) {
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
