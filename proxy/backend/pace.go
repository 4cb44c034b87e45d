package backend

import (
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// Pace is how fast connections may be opened: Burst of them at once, and one more Every so often.
type Pace struct {
	Burst int
	Every time.Duration
}

// A connection that is closed leaves its local port unusable for a minute (TIME_WAIT), and Linux has 28,232 ports for one
// backend address, which is 470 connections a second for all clients together. So one identity, with its own connections and
// its lanes, must stay well below that. A session without a token waits for one: nothing is refused.
var (
	// sessionPace is for the own connections of one session after its first one, which comes with a handshake that costs the
	// client more. An honest client needs another one after 5 s without use, after RESET, and after an error to a
	// command that changes its state: seldom more than once a second, and a pool that RESETs now and then has a burst.
	sessionPace = Pace{Burst: 64, Every: 40 * time.Millisecond}
	// identityPace is for the same connections of all sessions of an identity: 1,000 sessions that each need one every 5 s.
	identityPace = Pace{Burst: 2048, Every: 5 * time.Millisecond}
	// lanePace is for the lanes of an identity, so that own connections never make lanes wait: four each in 16
	// databases, of both kinds, at once.
	lanePace = Pace{Burst: 128, Every: 50 * time.Millisecond}
)

func (p *Pace) setDefault(d Pace) {
	if p.Burst == 0 {
		*p = d
	}
}

// Bucket holds tokens, one for each dial, at a pace. It begins full. Safe for concurrent use.
type Bucket struct {
	pace Pace
	now  func() clock.Instant

	mu   sync.Mutex
	full clock.Instant // the bucket is full from then on. Guarded by mu
}

// Take takes a token and returns 0, or takes none and returns the time until there is one.
func (b *Bucket) Take() (wait time.Duration) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	full := max(b.full, now)
	if wait := full.Sub(now) - b.pace.Every*time.Duration(b.pace.Burst-1); wait > 0 {
		return wait
	}
	b.full = full.Add(b.pace.Every)
	return 0
}

// isFull reports whether the bucket is like a new one.
func (b *Bucket) isFull() bool {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.full <= now
}

// Await takes a token, and waits until there is one. It returns false if done was closed first.
func (b *Bucket) Await(done <-chan struct{}) bool {
	for {
		wait := b.Take()
		if wait <= 0 {
			return true
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-done:
			t.Stop()
			return false
		}
	}
}

// Line is a bucket whose tokens are given out in turn to those who wait.
type Line struct {
	bucket Bucket
	first  chan struct{} // has room for the caller whose turn is next; the other callers wait to send to it
}

// Try takes a token if there is one and nobody stands in the line for it.
func (l *Line) Try() bool { return len(l.first) == 0 && l.bucket.Take() <= 0 }

// Await takes a token, and waits in the line until there is one. It returns false if done was closed first.
func (l *Line) Await(done <-chan struct{}) bool {
	select {
	case l.first <- struct{}{}:
	case <-done:
		return false
	}
	defer func() { <-l.first }()
	return l.bucket.Await(done)
}

// Tokens are those of one identity. A caller takes one before it dials for a session or a lane of that identity.
type Tokens struct {
	Own, Lanes Line

	backend *Backend
	told    atomic.Bool // that somebody waits
}

// NoteWait counts a wait for a token as "paced", and logs once that the sessions of an identity wait until they have long not had to.
// client names the identity in the log.
func (t *Tokens) NoteWait(client string) {
	t.backend.Count("paced")
	if !t.told.Swap(true) {
		t.backend.about(t.backend.c.Log.Warn()).Str("client", client).Msg("a client needs new backend connections too fast: its commands wait for them")
	}
}

// tokens has those of each identity that has lately dialled. Safe for concurrent use.
type tokens struct {
	mu sync.Mutex
	of map[netio.QuotaKey]*Tokens // guarded by mu
}

// TokensOf returns the tokens of an identity. They are kept until TidyTokens finds that all of them could be had.
func (b *Backend) TokensOf(key netio.QuotaKey) *Tokens {
	b.tokens.mu.Lock()
	defer b.tokens.mu.Unlock()
	t := b.tokens.of[key]
	if t == nil {
		t = &Tokens{Own: b.line(b.c.IdentityPace), Lanes: b.line(b.c.LanePace), backend: b}
		b.tokens.of[key] = t
	}
	return t
}

func (b *Backend) line(p Pace) Line {
	return Line{bucket: Bucket{pace: p, now: b.c.Now}, first: make(chan struct{}, 1)}
}

// SessionTokens returns a bucket for the own connections of one session after its first one.
func (b *Backend) SessionTokens() *Bucket { return &Bucket{pace: b.c.SessionPace, now: b.c.Now} }

// TidyTokens forgets identities that could get all their tokens. Whoever has just got one of them takes a token that nobody
// counts, once.
func (b *Backend) TidyTokens() {
	b.tokens.mu.Lock()
	defer b.tokens.mu.Unlock()
	for key, t := range b.tokens.of {
		if t.Own.bucket.isFull() && t.Lanes.bucket.isFull() {
			delete(b.tokens.of, key)
		}
	}
}
