package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/netio"
)

// BackendConfig says how to reach the store. Its functions are called at every dial.
type BackendConfig struct {
	// Target is "tcp" and host:port, or "unix" and a path.
	Target func() (network, address string, err error)
	TLS    func() *tls.Config // nil, or nil from it: in clear
	// Credentials are what the proxy authenticates with; nil, or no password: clients authenticate themselves.
	Credentials func() (user, password string, err error)
	// Mapped says that sessions act as users of their own (Peer.User). Such a session is served only by a backend that
	// answers NOAUTH to a connection that did not authenticate, so BackendReady wants the same; Credentials serve it
	// alone then. nil: they do not.
	Mapped         func() bool
	ConnectTimeout time.Duration // for one dial, with authentication
	// SetName: a connection of a client with a certificate carries its name in CLIENT LIST, until the client sets one.
	SetName        bool
	MaxConnections int // 0: no limit
	// Shared: sessions share lanes, see lane.go. Without it each session has a connection of its own.
	Shared bool
	Lanes  int // most lanes of one key; 0: grows with load from 1 to max(4, GOMAXPROCS)
}

var (
	errBackendAuth = errors.New("the backend refused the proxy's credentials")
	errBackendOpen = errors.New("the backend lets connections in that did not authenticate: a client could drop the user it is given")
	// errBackendUnasked: whose reply comes next cannot be known any more.
	errBackendUnasked = errors.New("the backend answered what was not asked")
	errBackendFull    = errors.New("BACKEND_MAX_CONNECTIONS is reached")
	// errBackendBusy: not a word about the credentials was said.
	errBackendBusy  = errors.New("the backend takes no connection now (loading, or its maxclients is reached)")
	errDialPanicked = errors.New("panic in a dial")
)

// backendSettings is what a backend is made of. Target and Buffers are required.
type backendSettings struct {
	// Target returns "tcp" and host:port, or "unix" and a path.
	Target func() (network, address string, err error)
	TLS    func() *tls.Config // nil, or nil from it: in clear
	// Credentials are what the prober authenticates with; nil, or no password: it does not.
	Credentials func() (user, password string, err error)
	// Mapped reports whether clients act as users of their own, so that a backend which serves connections without AUTH is of no
	// use; nil: they do not.
	Mapped         func() bool
	ConnectTimeout time.Duration // for one dial, with the introduction; 2 s
	MaxConnections int           // open at the same time, the prober's aside; 0: no limit
	// CloseIdle closes up to n connections, those that have been idle for longest. It is called while dials wait for a place among
	// MaxConnections, by one goroutine. nil: none may be closed.
	CloseIdle    func(n int)
	KeepAlive    time.Duration  // 0: off
	WriteTimeout time.Duration  // a connection breaks 30 s after a write has waited for so long; 0: never
	Buffers      *netio.Buffers // count what connections hold

	// Moved is called when the name of Target leads to another address than before, the nth time: connections that were dialled
	// before are to end. It is called by whoever dials, without locks. nil: each dial resolves the name by itself.
	Moved           func(n uint64)
	ResolveInterval time.Duration                                   // with Moved, a name is resolved again at most this often; 1 s
	Lookup          func(context.Context, string) ([]string, error) // with Moved; net.DefaultResolver.LookupHost

	Log zerolog.Logger // of the prober
	Now func() int64   // a monotonic clock, in nanoseconds; time since New
}

// backend dials the store. After a failure dials go one at a time, at growing distances. Safe for concurrent use.
type backend struct {
	c            backendSettings
	writeTimeout time.Duration
	room         *room  // nil: no limit
	epoch        *epoch // nil: every dial resolves

	backendCounters
	answers

	gate chan struct{} // the turn to dial while the backend fails
	mu   sync.Mutex
	// guarded by mu
	pause time.Duration // distance of the next dial after a failure; 0: the last dial worked
	next  time.Time
}

const (
	firstPause = 20 * time.Millisecond
	maxPause   = time.Second
)

func newBackend(c backendSettings) *backend {
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = 2 * time.Second
	}
	if c.ResolveInterval == 0 {
		c.ResolveInterval = time.Second
	}
	if c.Lookup == nil {
		c.Lookup = net.DefaultResolver.LookupHost
	}
	if c.Now == nil {
		started := time.Now()
		c.Now = func() int64 { return int64(time.Since(started)) }
	}
	b := &backend{c: c, gate: make(chan struct{}, 1)}
	b.errors = make(map[string]uint64)
	if c.WriteTimeout > 0 {
		// A backend that stops for a while costs waiting, no session.
		b.writeTimeout = c.WriteTimeout + 30*time.Second
	}
	if c.MaxConnections > 0 {
		b.room = &room{places: make(chan struct{}, c.MaxConnections), closeIdle: c.CloseIdle}
	}
	if c.Moved != nil {
		b.epoch = newEpoch(c.ResolveInterval, c.Lookup, c.Moved)
	}
	return b
}

// run probes the backend and follows its address until ctx ends.
func (b *backend) run(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	if b.epoch != nil {
		following.Go(func() { b.follow(ctx) })
	}
	b.probe(ctx)
}

// isFull reports whether a dial would wait for a place among MaxConnections. hot
func (b *backend) isFull() bool { return b.room.isFull() }

// hasSpare reports whether idle connections may stay for the next command of clients that seldom ask: fewer than half of
// MaxConnections are open.
func (b *backend) hasSpare() bool {
	most := int64(b.c.MaxConnections)
	return most <= 0 || b.connections.Load() < most/2
}

// isFailing reports whether the last dial failed through the backend's fault: then dials go one at a time, with pauses.
func (b *backend) isFailing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause > 0
}

// dial opens a connection that belongs to one session, and introduces it.
func (b *backend) dial(ctx context.Context, l login) (c *backendConn, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.room != nil {
		if !b.room.take(ctx) {
			b.count("max_connections")
			return nil, errBackendFull
		}
		defer func() {
			if c == nil {
				b.room.leave()
			}
		}()
	}
	done, err := b.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	err = errDialPanicked
	defer func() { done(l.blame(err)) }()
	c, err = b.connect(ctx, l)
	if errors.Is(ctx.Err(), context.Canceled) && err != nil {
		return nil, context.Canceled // whoever wanted it does not any more: that says nothing of the backend
	}
	if err != nil {
		b.count(backendReason(err))
		return nil, err
	}
	cost := int64(connectionCost)
	if c.tls != nil {
		cost += tlsConnectionCost
	}
	b.c.Buffers.Fix(cost)
	c.release = func() {
		b.c.Buffers.Fix(-cost)
		b.connections.Add(-1)
		if b.room != nil {
			b.room.leave()
		}
	}
	b.connections.Add(1)
	return c, nil
}

// takeTurn lets everybody dial at once while dials work; after a failure one at a time.
func (b *backend) takeTurn(ctx context.Context) (done func(error), err error) {
	if !b.isFailing() {
		return b.outcome, nil
	}
	select {
	case b.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	wait := time.Until(b.next)
	if b.pause == 0 {
		wait = 0
	}
	b.mu.Unlock()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			<-b.gate
			return nil, ctx.Err()
		}
	}
	return func(err error) { b.outcome(err); <-b.gate }, nil
}

func (b *backend) outcome(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, errNoPassword) {
		return // the backend was not asked
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.pause = 0
		return
	}
	b.pause = min(maxPause, max(firstPause, 2*b.pause))
	b.next = time.Now().Add(b.pause)
}

func backendReason(err error) string {
	var ne net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, errBackendAuth):
		return "auth"
	case errors.Is(err, errBackendOpen):
		return "unauthenticated_access"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	case errors.Is(err, errSettings):
		return "settings"
	case errors.Is(err, errBackendBusy):
		return "busy"
	case errors.Is(err, errBackendUnasked):
		return "unasked"
	case errors.Is(err, errBackendTLS), errors.As(err, &op) && op.Op == "remote error":
		return "tls"
	}
	return "dial"
}

var errBackendTLS = errors.New("TLS with the backend")

var errSettings = errors.New("read the backend's address and credentials")

func (b *backend) connect(ctx context.Context, l login) (*backendConn, error) {
	b.dials.Add(1)
	ctx, cancel := context.WithTimeout(ctx, b.c.ConnectTimeout)
	defer cancel()
	var user, password string
	if l.credentials != nil {
		var err error
		if user, password, err = l.credentials(); err != nil {
			return nil, fmt.Errorf("%w: %w", errSettings, err)
		}
	}
	d := net.Dialer{KeepAlive: -1}
	network, address, err := b.c.Target()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSettings, err)
	}
	var raw net.Conn
	var epoch uint64
	if b.epoch != nil {
		raw, epoch, err = b.epoch.dial(ctx, &d, network, address)
	} else {
		raw, err = d.DialContext(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	netio.Tune(raw, b.c.KeepAlive, b.writeTimeout)
	account := l.account
	if account == nil {
		account = b.c.Buffers.NewAccount()
	}
	sock, err := netio.NewSocket(raw, account, b.writeTimeout)
	if err != nil {
		raw.Close()
		return nil, err
	}
	c := &backendConn{sock: sock, conn: sock, epoch: epoch}
	if password != "" {
		c.user, c.credentials = user, l.credentials
	}
	deadline, _ := ctx.Deadline()
	raw.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	if err = b.secure(ctx, c, address); err == nil {
		begun := time.Now()
		err = c.introduce(&l, user, password)
		c.trip = time.Since(begun)
	}
	if !stop() {
		err = ctx.Err() // and the socket is closed, whatever else it led to
	}
	if err != nil {
		raw.Close()
		sock.Release()
		return nil, err
	}
	raw.SetReadDeadline(time.Time{})
	return c, nil
}

// secure makes the TLS connection where one is configured.
func (b *backend) secure(ctx context.Context, c *backendConn, address string) error {
	var conf *tls.Config
	if b.c.TLS != nil {
		conf = b.c.TLS()
	}
	if conf != nil {
		if conf.ServerName == "" {
			host, _, _ := net.SplitHostPort(address)
			conf = conf.Clone()
			conf.ServerName = host
		}
		t := tls.Client(c.sock, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("%w: %w", errBackendTLS, err)
		}
		c.conn, c.tls = t, t
	}
	return nil
}
