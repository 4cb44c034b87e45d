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
	lookup  func(context.Context, string) ([]string, error) // net.DefaultResolver's
	changed func(n uint64)                                  // connections of earlier epochs are to end
	asked   chan struct{}                                   // somebody doubts the address

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

func newEpoch(resolveInterval time.Duration) *epoch {
	return &epoch{resolveInterval: resolveInterval, lookup: net.DefaultResolver.LookupHost, asked: make(chan struct{}, 1)}
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
	if moved && e.changed != nil {
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

// followBackend resolves the backend's name again whenever the address is doubted.
func (s *Server) followBackend() {
	defer s.running.Done()
	for {
		select {
		case <-s.done:
			return
		case <-s.backend.epoch.asked:
		}
		// Whoever dials meanwhile may have been content with an answer from before the doubt.
		select {
		case <-s.done:
			return
		case <-time.After(s.backend.epoch.untilStale()):
		}
		s.backend.epoch.recall()
		s.backend.revisit(s.done)
		select {
		case <-s.done:
			return
		case <-time.After(s.c.resolveInterval):
		}
	}
}

// revisit connects once, which settles what the address is.
func (b *backend) revisit(done <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), b.c.ConnectTimeout)
	defer cancel()
	go cancelWith(ctx, done, cancel) // ends with ctx; nobody waits for it
	network, address, err := b.c.Target()
	if err != nil {
		return
	}
	if c, _, err := b.epoch.dial(ctx, &net.Dialer{KeepAlive: -1}, network, address); err == nil {
		c.Close()
	}
}

// moveTo ends what belongs to earlier epochs: lanes retire, own connections close once nothing is owed, and who cannot
// leave its own is closed.
func (s *Server) moveTo(n uint64) {
	s.log.Warn().Uint64("epoch", n).Msg("the backend's name has another address: connections to the last one end")
	s.lanes.each(func(l *lane) {
		if l.up.epoch < n {
			l.retire()
		}
	})
	s.each(func(c *session) { c.moveTo(n) })
}

// belated says that an epoch began while c was being opened. Who has put c where moveTo finds it asks, and then does
// what moveTo would have done.
func (b *backend) belated(c *backendConn) (n uint64, yes bool) {
	if b.epoch == nil {
		return 0, false
	}
	n = b.epoch.now()
	return n, c.epoch < n
}

func (s *session) moveTo(n uint64) {
	if s.ownsFromBirth() { // like a direct connection, it stays where it is
		return
	}
	p := &s.pump
	p.mu.Lock()
	old := p.up != nil && p.up.epoch < n
	if old {
		p.dirty = true
	}
	p.mu.Unlock()
	switch {
	case !old:
	case s.keepsOwn() || s.sticky() || s.waiting():
		s.end(closeMoved)
	default:
		s.shedDirty()
	}
}
