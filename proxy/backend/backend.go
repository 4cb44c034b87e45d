// Package backend connects to the store: it dials connections and introduces them, with pauses while the backend fails, within a limit and
// at a pace, it follows the backend's name when that leads to another address, and it probes whether the backend answers. What the connections
// are used for, sessions and lanes decide.
package backend

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/limit"
	"dragontls/proxy/netio"
)

// Config is what a backend is made of. Target and Buffers are required.
type Config struct {
	// Target returns "tcp" and host:port, or "unix" and a path.
	Target func() (network, address string, err error)
	TLS    func() *tls.Config // nil, or nil from it: in clear
	// Credentials are what the prober authenticates with; nil, or no password: it does not.
	Credentials Credentials
	// Mapped reports whether clients act as users of their own, so that a backend which serves connections without AUTH is of no
	// use; nil: they do not.
	Mapped      func() bool
	Settings                  // to begin with, see Change
	PartTimeout time.Duration // for the backend to close a connection first, see Part; 1 s
	// CloseIdle closes up to n connections, those that have been idle for longest. It is called while dials wait for a place among
	// MaxConnections, by one goroutine. If it is nil, none may be closed.
	CloseIdle func(n int)
	KeepAlive time.Duration  // 0: off
	Buffers   *netio.Buffers // count what connections hold

	// Moved is called when the backend has moved: the name of Target leads to another address than before, or the same address leads to
	// another backend (see Backend.Suspect). The goroutine that dials calls it, and holds no lock. nil: each dial resolves the name by
	// itself.
	Moved func(Move)
	// LifeOver is called when a life that Backend.Life has returned is over. It must not wait for anything; nil: nobody is told.
	LifeOver        func(*Life)
	ResolveInterval time.Duration                                   // with Moved, a name is resolved again at most this often; 1 s
	Lookup          func(context.Context, string) ([]string, error) // with Moved; net.DefaultResolver.LookupHost

	// SessionPace and IdentityPace are those of the own connections of one session and of one identity, LanePace is that of the lanes of
	// one identity; see the variables of these names.
	SessionPace, IdentityPace, LanePace Pace

	Limits Limits               // that dials can reach
	Log    zerolog.Logger       // of the prober and the paces
	Now    func() clock.Instant // a clock that begins with New
}

// Limits are told when dials reach them. Each may be nil.
type Limits struct {
	Connections *limit.Limit // MaxConnections: a dial has to wait for a place
	Descriptors *limit.Limit // open files: a dial has failed
	Clients     *limit.Limit // the backend's maxclients: it has refused a connection
}

// Backend dials the store. After a failure dials go one at a time, at growing distances. Methods may be called by any goroutine.
type Backend struct {
	c        Config // without Settings
	settings atomic.Pointer[Settings]
	room     room
	address  *address // nil: every dial resolves

	counters
	answers
	full     fullness
	tokens   tokens
	partings partings
	ports    missingPorts
	lives    lives

	gate chan struct{} // the turn to dial while the backend fails
	mu   sync.Mutex
	// guarded by mu
	pause time.Duration // distance of the next dial after a failure; 0: the last dial worked
	next  time.Time

	refused   error     // the error of the last dial, if the backend refused it
	refusedAt time.Time // when that was, or when the last dial out of turn began, see refusedLately
}

const (
	firstPause = 20 * time.Millisecond
	maxPause   = time.Second
)

// New returns a Backend that has dialled nothing yet. Fields of c at zero take the value named.
func New(c Config) *Backend {
	if c.ResolveInterval == 0 {
		c.ResolveInterval = time.Second
	}
	if c.PartTimeout <= 0 {
		c.PartTimeout = time.Second
	}
	c.SessionPace.setDefault(sessionPace)
	c.IdentityPace.setDefault(identityPace)
	c.LanePace.setDefault(lanePace)
	if c.Lookup == nil {
		c.Lookup = net.DefaultResolver.LookupHost
	}
	if c.Now == nil {
		c.Now = clock.Start()
	}
	b := &Backend{c: c, gate: make(chan struct{}, 1)}
	b.lives.wanted, b.lives.changed = make(chan struct{}, 1), make(chan struct{})
	b.errors, b.recoveries, b.tokens.of = make(map[string]uint64), make(map[string]uint64), make(map[netio.QuotaKey]*Tokens)
	b.room.closeIdle, b.room.limit = c.CloseIdle, c.Limits.Connections
	b.Change(c.Settings)
	b.c.Settings = Settings{} // nobody reads what may be out of date
	if c.Moved != nil {
		moved := c.Moved
		c.Moved = func(m Move) { b.lives.leave(m); moved(m) }
		b.address = newAddress(&c)
	}
	return b
}

// Run probes the backend (see Ready), follows its address (see Config.Moved) and watches over lives (see Life) until ctx ends.
// It is called once.
func (b *Backend) Run(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	if b.address != nil {
		following.Go(func() { b.follow(ctx) })
	}
	following.Go(func() { b.witness(ctx) })
	b.probe(ctx)
}

// CancelWith calls cancel when done is closed. It returns then, or when ctx ends. It is for callers of Dial and Run whose own end
// is a channel.
func CancelWith(ctx context.Context, done <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-done:
		cancel()
	case <-ctx.Done():
	}
}

// IsFull reports whether a dial would wait for a place among MaxConnections. hot
func (b *Backend) IsFull() bool { return b.room.isFull() }

// HasSpare reports whether idle connections may stay for the next command of clients that seldom ask: fewer than half of
// MaxConnections are open.
func (b *Backend) HasSpare() bool {
	most := b.room.most.Load()
	return most <= 0 || b.connections.Load() < most/2
}

// IsFailing reports whether the last dial failed through the backend's fault: then dials go one at a time, with pauses.
func (b *Backend) IsFailing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause > 0
}
