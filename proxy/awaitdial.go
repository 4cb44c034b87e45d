package proxy

import "time"

// awaitDial waits until the session may dial another backend connection of its own. The first one is free. The pump
// calls it, and holds no lock and no place among BACKEND_MAX_CONNECTIONS meanwhile. waited is false where there was no need
// to; ok is false where the session has ended.
func (s *session) awaitDial() (waited, ok bool) {
	p := &s.pump
	p.mu.Lock()
	first := !p.dialled
	p.mu.Unlock()
	if first {
		return false, true
	}
	name := ""
	if peer := s.peer.Load(); peer != nil {
		name = peer.Name
	}
	tokens := s.server.backend.TokensOf(s.quotaKey())
	if p.tokens == nil {
		p.tokens = s.server.backend.SessionTokens()
	}
	mine := p.tokens.Take() <= 0
	if mine && tokens.Own.Try() {
		return false, true
	}
	tokens.NoteWait(name)
	over := make(chan struct{})
	defer close(over)
	go s.watchUntil(over) // ends with the wait; nobody waits for it
	return true, (mine || p.tokens.Await(s.done)) && tokens.Own.Await(s.done)
}

// watchUntil notices a client that vanishes before over is closed, and ends the session of one that sends no more once it has
// waited as long as it would for a silent backend.
func (s *session) watchUntil(over <-chan struct{}) {
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	for silent := time.Duration(0); ; {
		select {
		case <-over:
			return
		case <-s.done:
			return
		case <-t.C:
		}
		fin, ended := s.lookAtClient()
		if ended {
			return
		}
		if fin {
			silent += watchInterval
		}
		if silent > s.server.eofTimeout() {
			s.end(closeClient)
			return
		}
	}
}

// lookAtClient reports whether the client sends no more. It ends the session of a client that has reset its connection, and
// of one that sends no more while a command of it waits for others, so that no element is popped for a client that is gone;
// then ended is true. A subscriber that sends no more goes on: what it sent before is still to be answered.
func (s *session) lookAtClient() (fin, ended bool) {
	fin, broken := s.client.sock.HungUp()
	switch {
	case broken:
		s.kill(closeClientError)
	case fin && s.blocked():
		s.end(closeClient)
	default:
		return fin, false
	}
	return fin, true
}
