package backend

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"dragontls/proxy/clock"
)

// address is where the backend is. All connections go to one of the addresses that its name leads to, for two of them may be two backends.
// The backend moves when another address has taken a connection, because the current one did not or is no longer among the answers for
// the name. It also moves in place: the address is the same, but it leads to another backend by now, see Backend.Suspect. Safe for
// concurrent use.
type address struct {
	lookup func(context.Context, string) ([]string, error)
	moved  func(Move)    // Config.Moved
	asked  chan struct{} // somebody doubts the address
	now    func() clock.Instant

	resolveInterval time.Duration

	mu sync.Mutex
	// guarded by mu
	moves   uint64 // so far
	away    uint64 // what moves became when the backend last moved to another address
	inPlace uint64 // what moves became when the backend last moved in place
	target  string // host:port that was resolved
	current string // empty if none was reached yet
	doubted bool   // to be resolved again
	suspicion
	// what the name was resolved to last
	host     string
	hosts    []string
	resolved time.Time
}

func newAddress(c *Config) *address {
	return &address{resolveInterval: c.ResolveInterval, lookup: c.Lookup, moved: c.Moved, now: c.Now, asked: make(chan struct{}, 1)}
}

// dial connects to the current address, or to the first of the name's addresses that accepts. moves is how often the backend had moved
// when that address was chosen.
func (a *address) dial(ctx context.Context, d *net.Dialer, network, target string) (c net.Conn, moves uint64, err error) {
	began := a.movesSoFar()
	if network != "tcp" {
		c, err := d.DialContext(ctx, network, target)
		return c, began, err
	}
	addresses, err := a.candidates(ctx, target)
	for _, at := range addresses {
		if c, err = d.DialContext(ctx, network, at); err == nil {
			return c, a.accepted(target, at, began), nil
		}
	}
	if ctx.Err() == nil {
		a.doubt()
	}
	return nil, 0, err
}

// candidates are the addresses to try, in order: the current one first as long as it is among the answers.
func (a *address) candidates(ctx context.Context, target string) ([]string, error) {
	a.mu.Lock()
	current := a.current
	known := current != "" && a.target == target
	doubted := a.doubted
	a.mu.Unlock()
	if known && !doubted {
		return []string{current}, nil
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	hosts := []string{host}
	if net.ParseIP(host) == nil {
		if hosts, err = a.resolve(ctx, host); err != nil {
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
func (a *address) resolve(ctx context.Context, host string) ([]string, error) {
	a.mu.Lock()
	hosts, fresh := a.hosts, a.host == host && time.Since(a.resolved) < a.resolveInterval
	a.mu.Unlock()
	if fresh {
		return hosts, nil
	}
	hosts, err := a.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.host, a.hosts, a.resolved = host, hosts, time.Now()
	a.mu.Unlock()
	return hosts, nil
}

// untilStale is how long the last answer for the name is taken for good.
func (a *address) untilStale() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.resolveInterval - time.Since(a.resolved)
}

// recall has the next dial look at the name. It returns how often the backend has moved so far, and whether it is suspected.
func (a *address) recall() (moves uint64, suspected bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doubted = true
	return a.moves, a.suspected
}

// movesSoFar is how often the backend has moved.
func (a *address) movesSoFar() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.moves
}

// accepted is told which address took a connection, and how often the backend had moved when it was chosen. If it is another than the
// current one, the backend moves there, unless it has moved since: then the connection is one from before that move. So it is if the
// backend has moved in place since. accepted returns how often the backend had moved as far as the connection is concerned.
func (a *address) accepted(target, at string, began uint64) uint64 {
	a.mu.Lock()
	moved := a.current != "" && a.current != at
	if moved && a.moves != began || began < a.inPlace {
		a.mu.Unlock()
		return began
	}
	if moved {
		a.moves++
		a.away = a.moves
	}
	moves := a.moves
	a.target, a.current, a.doubted = target, at, false
	a.mu.Unlock()
	if moved {
		a.moved(Move{N: moves, Address: at})
	}
	return moves
}

// doubt has the name resolved again. It never waits.
func (a *address) doubt() {
	a.recall()
	select {
	case a.asked <- struct{}{}:
	default:
	}
}

// follow resolves the backend's name again whenever the address is doubted, until ctx ends. If the backend was suspected, and the name
// leads to the same address still, it moves in place once that takes a connection.
func (b *Backend) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.address.asked:
		}
		// A caller that dials meanwhile may have used an answer from before the doubt.
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.address.untilStale()):
		}
		moves, suspected := b.address.recall()
		reached := b.revisit(ctx)
		if suspected && reached {
			b.moveInPlace(moves)
		} else if suspected {
			b.address.doubt()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.c.ResolveInterval):
		}
	}
}

// revisit connects once, which settles what the address is, and reports whether that succeeded.
func (b *Backend) revisit(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, b.connectTimeout())
	defer cancel()
	network, target, err := b.c.Target()
	if err != nil {
		return false
	}
	c, _, err := b.address.dial(ctx, &net.Dialer{KeepAlive: -1}, network, target)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// URL names the backend as BACKEND_URL does, without user and password, for people. It is empty if the address cannot be read.
func (b *Backend) URL() string {
	network, target, err := b.c.Target()
	switch {
	case err != nil:
		return ""
	case network == "unix":
		return "unix://" + target
	case b.tls() != nil:
		return "rediss://" + target
	}
	return "redis://" + target
}

// currentAddress returns which of the addresses that target leads to took the last connection, or else target.
func (b *Backend) currentAddress(target string) string {
	if b.address == nil {
		return target
	}
	b.address.mu.Lock()
	defer b.address.mu.Unlock()
	if b.address.target != target || b.address.current == "" {
		return target
	}
	return b.address.current
}

// CurrentAddress returns the address that took the last connection, or else what Target returns; empty if that cannot be read.
func (b *Backend) CurrentAddress() string {
	_, target, err := b.c.Target()
	if err != nil {
		return ""
	}
	return b.currentAddress(target)
}

// DialledBeforeMove reports whether the backend has moved since the dial of c began; n is how often it has moved so far.
// Make c visible to Config.Moved first, then call this: if it reports true, end c as Moved does, which may have run before it could
// see c.
func (b *Backend) DialledBeforeMove(c *Conn) (n uint64, yes bool) {
	if b.address == nil {
		return 0, false
	}
	n = b.address.movesSoFar()
	return n, c.DialledBefore(n)
}

// LeadsElsewhere reports whether c leads to another address than the one that the backend has now.
func (b *Backend) LeadsElsewhere(c *Conn) bool {
	if b.address == nil {
		return false
	}
	b.address.mu.Lock()
	defer b.address.mu.Unlock()
	return c.DialledBefore(b.address.away)
}
