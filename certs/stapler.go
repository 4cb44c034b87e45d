package certs

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// A response is asked for again at half of what it has left, at the earliest
	// after minStapleRefresh; after a failure sooner, more slowly each time.
	minStapleRefresh   = time.Minute
	firstStapleBackoff = 30 * time.Second
	maxStapleBackoff   = time.Hour
	// maxStapleWait: a timer does not notice that the clock was set or the machine slept.
	maxStapleWait = time.Hour
)

// Staple describes an OCSP response that is served.
type Staple struct {
	File       string // of the certificate
	Serial     string // of the certificate
	ThisUpdate time.Time
	NextUpdate time.Time // or the end of the certificate where that is earlier
}

// Revocation is a server certificate that its CA says is revoked.
type Revocation struct {
	File   string
	Serial string
	At     time.Time
}

// Staples lists what is stapled now. It is empty while OCSP is off.
func (s *Store) Staples() []Staple {
	var all []Staple
	for _, p := range s.snapshot.Load().pairs {
		if st := p.stapled.Load(); st != nil && st.staple.inDate(s.opts.clock()) {
			all = append(all, Staple{p.file, p.info[0].Serial, st.staple.from, st.staple.until})
		}
	}
	return all
}

// OnRevoked has f called, by the goroutine of Watch, when an OCSP response says
// that a server certificate is revoked: once, until a response says otherwise.
func (s *Store) OnRevoked(f func(Revocation)) {
	if s.stapler == nil {
		return
	}
	s.stapler.mu.Lock()
	defer s.stapler.mu.Unlock()
	s.stapler.onRevoked = append(s.stapler.onRevoked, f)
}

// leafKey is the digest of a leaf and its issuer: what a response is for.
type leafKey [32]byte

func (p *pair) key() leafKey {
	h := sha256.New()
	h.Write(p.tls.Leaf.Raw)
	if p.issuer != nil {
		h.Write(p.issuer.Raw)
	}
	return leafKey(h.Sum(nil))
}

// stapler keeps the OCSP responses of the server certificates. Handshakes never
// wait for it: they take what is there.
type stapler struct {
	store *Store
	fetch func(ctx context.Context, p *pair, now time.Time) (*staple, error) // nil: from a file
	log   zerolog.Logger
	clock func() time.Time
	wake  chan struct{}

	// The goroutine of run owns these.
	leafs map[leafKey]*leafState

	mu        sync.Mutex
	known     map[leafKey]*staple // guarded by mu
	onRevoked []func(Revocation)  // guarded by mu
}

// leafState is what run remembers of one leaf.
type leafState struct {
	due      time.Time // of the next fetch
	failures int       // in a row
	said     string    // the last fault that was logged
	stapled  bool      // as of the last pass
}

func newStapler(s *Store) *stapler {
	t := &stapler{store: s, log: s.opts.Log, clock: s.opts.clock, wake: make(chan struct{}, 1),
		leafs: map[leafKey]*leafState{}, known: map[leafKey]*staple{}}
	if s.opts.OCSP == ocspFetch {
		t.fetch = newFetcher().fetch
	}
	s.OnChange(func(*Snapshot) {
		select {
		case t.wake <- struct{}{}:
		default: // it will look anyway
		}
	})
	return t
}

// prepare staples what is known to a snapshot that is about to be served.
func (t *stapler) prepare(s *Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range s.pairs {
		if t.fetch != nil {
			p.staple(t.known[p.key()])
		} else {
			p.staple(p.filed.staple)
		}
	}
}

// run keeps the responses fresh until ctx ends.
func (t *stapler) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-timer.C:
		}
		timer.Reset(t.pass(ctx))
	}
}

// pass does what is due and returns how long nothing else is.
func (t *stapler) pass(ctx context.Context) time.Duration {
	snapshot := t.store.snapshot.Load()
	leafs := make(map[leafKey]*leafState, len(snapshot.pairs))
	for _, p := range snapshot.pairs {
		key := p.key()
		if leafs[key] != nil {
			continue // one leaf, two files
		}
		state := t.leafs[key]
		if state == nil {
			state = &leafState{}
		}
		leafs[key] = state
		switch {
		case t.fetch == nil:
			t.judge(p, state, p.filed.err)
		case !t.clock().Before(state.due):
			t.refresh(ctx, p, key, state)
		}
	}
	t.leafs = leafs
	t.forget()
	// What was learned meanwhile, for the snapshot of now and not that of then.
	snapshot = t.store.snapshot.Load()
	t.prepare(snapshot)
	return t.watchEnds(snapshot)
}

// refresh asks for the response of one leaf.
func (t *stapler) refresh(ctx context.Context, p *pair, key leafKey, state *leafState) {
	next, err := t.fetch(ctx, p, t.clock())
	if ctx.Err() != nil {
		return
	}
	now := t.clock()
	if err == nil {
		t.remember(key, next)
		state.failures, state.said = 0, ""
		state.due = now.Add(max(minStapleRefresh, next.until.Sub(now)/2))
		t.log.Info().Str("file", p.file).Str("serial", p.info[0].Serial).Time("next_update", next.until).Msg("OCSP response stapled")
		return
	}
	if _, revoked := errors.AsType[*revokedError](err); revoked {
		t.remember(key, nil) // a good response from before would be a lie now
	}
	backoff := min(firstStapleBackoff<<min(state.failures, 10), maxStapleBackoff)
	state.failures++
	state.due = now.Add(backoff/2 + rand.N(backoff/2))
	t.judge(p, state, err)
}

// judge logs why there is no new response, once while it stays the same.
func (t *stapler) judge(p *pair, state *leafState, err error) {
	if err == nil || err.Error() == state.said {
		return
	}
	state.said = err.Error()
	fields := func(e *zerolog.Event) *zerolog.Event {
		return e.Str("file", p.file).Str("serial", p.info[0].Serial).Err(err)
	}
	revoked, ok := errors.AsType[*revokedError](err)
	switch {
	case ok:
		fields(t.log.Error()).Str("cure", "replace the certificate and its key").Msg("server certificate is revoked")
		t.mu.Lock()
		hooks := t.onRevoked
		t.mu.Unlock()
		for _, f := range hooks {
			f(Revocation{p.file, p.info[0].Serial, revoked.at})
		}
	case errors.Is(err, errOCSPIssuer):
		fields(t.log.Warn()).Str("cure", ocspIssuerCure).Msg("no OCSP response can be stapled")
	default:
		fields(t.log.Warn()).Msg("no OCSP response can be stapled")
	}
}

func (t *stapler) remember(key leafKey, s *staple) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s == nil {
		delete(t.known, key)
		return
	}
	t.known[key] = s
}

// forget drops the responses of leafs that are served no more.
func (t *stapler) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.known {
		if t.leafs[key] == nil {
			delete(t.known, key)
		}
	}
}

// watchEnds logs a staple that ended with nothing to follow, and returns how long
// nothing is due.
func (t *stapler) watchEnds(s *Snapshot) time.Duration {
	now := t.clock()
	wait := maxStapleWait
	for _, p := range s.pairs {
		state := t.leafs[p.key()]
		if state == nil {
			return 0 // swapped in meanwhile
		}
		if t.fetch != nil {
			wait = min(wait, state.due.Sub(now))
		}
		st := p.stapled.Load()
		stapled := st != nil && st.staple.inDate(now)
		if st != nil && !stapled && (state.stapled || t.fetch == nil) {
			t.judge(p, state, outOfDate(st.staple, now))
		}
		state.stapled = stapled
		if stapled && t.fetch == nil {
			state.said = "" // the file was put right: what is wrong next is news
		}
		if st == nil {
			continue
		}
		for _, at := range []time.Time{st.staple.from, st.staple.until} {
			if at.After(now) {
				wait = min(wait, at.Sub(now))
			}
		}
	}
	return max(0, wait)
}

func outOfDate(s *staple, now time.Time) error {
	if now.Before(s.from) {
		return errOCSPEarly
	}
	return errOCSPEnded
}
