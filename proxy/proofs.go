package proxy

import "sync"

// proofs remembers for which keys of lanes a fresh connection has shown that the backend serves it without a password. The
// zero value works. Safe for concurrent use.
type proofs struct {
	mu  sync.Mutex
	all map[laneKey]int64 // when that connection was opened; guarded by mu
}

func (p *proofs) note(key laneKey, opened int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[laneKey]int64)
	}
	p.all[key] = max(p.all[key], opened)
}

// since reports whether there is such a proof by a connection that was opened at from or later.
func (p *proofs) since(key laneKey, from int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.all[key]
	return ok && at >= from
}

// tidy forgets what was shown before from.
func (p *proofs) tidy(from int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, at := range p.all {
		if at < from {
			delete(p.all, key)
		}
	}
}

// isProven reports whether the backend serves connections of the session's kind without more words: its own has shown it, or
// within the last second one of its lane key has.
func (s *session) isProven(now int64) bool {
	if s.proven.Load() {
		return true
	}
	if s.hasOwn() {
		return false // which is about to show it
	}
	key, _ := s.laneKey(false)
	if !s.server.proofs.since(key, now-int64(s.server.c.proofAge)) {
		return false
	}
	s.proven.Store(true)
	return true
}

// prove notes that the session's own connection has shown that the backend serves it. For others that holds as of when the
// connection was opened: a backend goes on serving old ones when it begins to want a password. The pump calls it.
func (s *session) prove() {
	if s.proven.Swap(true) || s.keepsOwn() { // which may have authenticated itself
		return
	}
	key, _ := s.laneKey(false)
	s.server.proofs.note(key, s.pump.conn.opened)
}
