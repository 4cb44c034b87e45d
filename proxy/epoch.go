package proxy

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// epoch is the backend at one resolved address. All connections of shared sessions belong to one: two of a name's
// addresses may be two backends. Safe for concurrent use.
type epoch struct {
	lookup  func(context.Context, string) ([]string, error)
	changed func(n uint64) // connections of earlier epochs are to end
	asked   chan struct{}  // somebody doubts the address

	resolveInterval time.Duration

	mu sync.Mutex
	// guarded by mu
	n       uint64
	target  string // host:port that was resolved
	address string // of this epoch; empty: none was reached yet
	doubted bool   // to be resolved again
	// what the name was resolved to last
	host     string
	hosts    []string
	resolved time.Time
}

func newEpoch(resolveInterval time.Duration, lookup func(context.Context, string) ([]string, error), changed func(uint64)) *epoch {
	return &epoch{resolveInterval: resolveInterval, lookup: lookup, changed: changed, asked: make(chan struct{}, 1)}
}

// dial connects to the epoch's address, or to the first of the name's addresses that accepts.
func (e *epoch) dial(ctx context.Context, d *net.Dialer, network, target string) (net.Conn, uint64, error) {
	if network != "tcp" {
		c, err := d.DialContext(ctx, network, target)
		return c, e.now(), err
	}
	began := e.now()
	addresses, err := e.candidates(ctx, target)
	for _, a := range addresses {
		var c net.Conn
		if c, err = d.DialContext(ctx, network, a); err == nil {
			return c, e.accepted(target, a, began), nil
		}
	}
	if ctx.Err() == nil {
		e.doubt()
	}
	return nil, 0, err
}

// candidates are the addresses to try, in order: the epoch's own as long as it is among the answers.
func (e *epoch) candidates(ctx context.Context, target string) ([]string, error) {
	e.mu.Lock()
	current := e.address
	known := current != "" && e.target == target
	doubted := e.doubted
	e.mu.Unlock()
	if known && !doubted {
		return []string{current}, nil
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	hosts := []string{host}
	if net.ParseIP(host) == nil {
		if hosts, err = e.resolve(ctx, host); err != nil {
			return nil, err
		}
	}
	addresses := make([]string, len(hosts))
	for i, h := range hosts {
		addresses[i] = net.JoinHostPort(h, port)
	}
	if i := slices.Index(addresses, current); known && i > 0 {
		addresses[0], addresses[i] = addresses[i], addresses[0]
	}
	return addresses, nil
}

// resolve asks for a name's addresses unless that was done a moment ago.
func (e *epoch) resolve(ctx context.Context, host string) ([]string, error) {
	e.mu.Lock()
	hosts, fresh := e.hosts, e.host == host && time.Since(e.resolved) < e.resolveInterval
	e.mu.Unlock()
	if fresh {
		return hosts, nil
	}
	hosts, err := e.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.host, e.hosts, e.resolved = host, hosts, time.Now()
	e.mu.Unlock()
	return hosts, nil
}

// untilStale is how long the last answer for the name is taken for good.
func (e *epoch) untilStale() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.resolveInterval - time.Since(e.resolved)
}

// recall has the next dial look at the name.
func (e *epoch) recall() {
	e.mu.Lock()
	e.doubted = true
	e.mu.Unlock()
}

// now is the number of the epoch.
func (e *epoch) now() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// accepted is told which address took a connection. Another one than before begins a new epoch, unless one has begun
// since the epoch began in which the address was chosen: then the connection belongs to the earlier one.
func (e *epoch) accepted(target, address string, began uint64) uint64 {
	e.mu.Lock()
	moved := e.address != "" && e.address != address
	if moved && e.n != began {
		e.mu.Unlock()
		return began
	}
	if moved {
		e.n++
	}
	n := e.n
	e.target, e.address, e.doubted = target, address, false
	e.mu.Unlock()
	if moved {
		e.changed(n)
	}
	return n
}

// doubt has the name resolved again. It never waits.
func (e *epoch) doubt() {
	e.recall()
	select {
	case e.asked <- struct{}{}:
	default:
	}
}

// suspect is told of a backend that answers as no primary does.
func (b *backend) suspect() {
	if b.epoch != nil {
		b.epoch.doubt()
	}
}

// follow resolves the backend's name again whenever the address is doubted, until ctx ends.
func (b *backend) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.epoch.asked:
		}
		// Whoever dials meanwhile may have been content with an answer from before the doubt.
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.epoch.untilStale()):
		}
		b.epoch.recall()
		b.revisit(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.c.ResolveInterval):
		}
	}
}

// revisit connects once, which settles what the address is.
func (b *backend) revisit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, b.c.ConnectTimeout)
	defer cancel()
	network, address, err := b.c.Target()
	if err != nil {
		return
	}
	if c, _, err := b.epoch.dial(ctx, &net.Dialer{KeepAlive: -1}, network, address); err == nil {
		c.Close()
	}
}

// dialledBeforeMove reports whether the backend moved to another address while c was being dialled, for the nth time since it
// began. Make c visible to backendSettings.Moved first, then call this: if it reports true, end c as Moved does, which may have
// run before it could see c.
func (b *backend) dialledBeforeMove(c *backendConn) (n uint64, yes bool) {
	if b.epoch == nil {
		return 0, false
	}
	n = b.epoch.now()
	return n, c.epoch < n
}
