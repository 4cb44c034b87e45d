package proxy

import (
	"sync"

	"dragontls/proxy/clock"
	"dragontls/proxy/lane"
)

// proofs remembers for which lane keys a new connection has shown that the backend serves it without a password. The zero
// value works. Safe for concurrent use.
type proofs struct {
	mu  sync.Mutex
	all map[lane.Key]clock.Instant // when the latest such connection was opened; guarded by mu
}

// note records such a proof by a connection that was opened at the time opened.
func (p *proofs) note(key lane.Key, opened clock.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[lane.Key]clock.Instant)
	}
	p.all[key] = max(p.all[key], opened)
}

// since reports whether a connection that was opened at from or later has shown it for key.
func (p *proofs) since(key lane.Key, from clock.Instant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.all[key]
	return ok && at >= from
}

// tidy forgets the proofs by connections that were opened before from.
func (p *proofs) tidy(from clock.Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, at := range p.all {
		if at < from {
			delete(p.all, key)
		}
	}
}

// isProven reports whether the backend is known to serve the session without further authentication: its own connection has
// shown that, or another of its lane key has that was opened within proofAge. A session that has a configured password begins
// as proven.
func (s *session) isProven(now clock.Instant) bool {
	return s.proven.Load() || s.isProvenByAnother(now)
}

// isProvenByAnother reports whether a new connection of another session has proven this one.
func (s *session) isProvenByAnother(now clock.Instant) bool {
	if s.hasOwn() {
		return false // the own connection is about to show it
	}
	key, _ := s.laneKey(false)
	if !s.server.proofs.since(key, now.Add(-s.server.c.proofAge)) {
		return false
	}
	s.proven.Store(true)
	return true
}

// prove notes that the session's own connection has shown that the backend serves it. For other sessions the proof dates
// from when that connection was opened: a backend that begins to demand a password still serves older connections. The pump
// calls it.
func (s *session) prove() {
	if s.proven.Swap(true) || s.keepsOwn() { // such a session may have authenticated itself: it proves nothing for others
		return
	}
	key, _ := s.laneKey(false)
	s.server.proofs.note(key, s.pump.conn.opened)
}
