package proxy

import (
	"crypto/tls"
	"slices"
	"time"

	"dragontls/proxy/netio"
)

// identity counts the sessions of one client, however many certificates and addresses it has. Guarded by Server.mu.
type identity struct {
	key      [32]byte
	sessions int         // with a place: at most MaxPerIdentity
	waiting  []*newcomer // in the order in which they came: at most MaxPerIdentity
}

// newcomer is a session that waits for a place.
type newcomer struct {
	session *session
	placed  chan struct{} // closed when the session gets a place
}

// startSession makes a session of a finished handshake. It registers the session before a byte of it is read, so that Close
// and Recheck see it, or refuses it and closes the connection if the server is full or has ended.
func (s *Server) startSession(sock *netio.Socket, conn *tls.Conn, st tls.ConnectionState) {
	n := newSession(s, sock, conn)
	s.mu.Lock()
	refused := closeReason("")
	switch {
	case s.isDone():
		refused = closeShutdown
	case len(s.sessions) >= s.c.MaxConnections:
		refused = closeFull
	default:
		s.sessions[n] = struct{}{}
		s.running.Add(1)
		s.buffers.Fix(sessionCost)
	}
	s.mu.Unlock()
	if refused != "" {
		s.closed.add(string(refused))
		conn.Close()
		_ = sock.Flush()
		sock.Release()
		return
	}
	n.meet(&st)
	n.account().Join(n.quotaKey())
	if !s.admit(n) {
		n.event(s.log.Info()).Str("client", n.peer.Load().Name).Msg("client has as many connections as it may")
		n.end(closeIdentityFull)
	}
	n.auditAccepted(&st)
	n.event(s.log.Debug()).Str("version", versionName(st.Version)).Bool("resumed", st.DidResume).Msg("session started")
	shares := n.share()
	go n.read() // ends with the session, Close waits for it
	if shares {
		return
	}
	if !n.ended() {
		n.dialOnce()
	}
	go n.runPump() // ends with the session, whose reader waits for it
}

// admit gives a session one of the places of its identity, and waits for placeTimeout at most until one is free. It returns
// false if it got none. A client without a certificate has no identity, and so no limit.
func (s *Server) admit(n *session) bool {
	p := n.peer.Load()
	if s.c.MaxPerIdentity <= 0 || p == nil || p.Identity == [32]byte{} {
		return true
	}
	s.mu.Lock()
	i := s.identities[p.Identity]
	if i == nil {
		i = &identity{key: p.Identity}
		s.identities[i.key] = i
	}
	if i.sessions < s.c.MaxPerIdentity {
		i.sessions++
		n.identity = i
		s.mu.Unlock()
		return true
	}
	if len(i.waiting) >= s.c.MaxPerIdentity {
		s.mu.Unlock()
		return false
	}
	w := &newcomer{session: n, placed: make(chan struct{})}
	i.waiting = append(i.waiting, w)
	s.mu.Unlock()
	return s.awaitPlace(i, w)
}

// awaitPlace waits until the newcomer has a place, its session has ended, or placeTimeout has passed. It returns false only
// in the last case.
func (s *Server) awaitPlace(i *identity, w *newcomer) bool {
	t := time.NewTimer(s.c.placeTimeout)
	defer t.Stop()
	select {
	case <-w.placed:
	case <-w.session.done:
	case <-t.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i.waiting = slices.DeleteFunc(i.waiting, func(o *newcomer) bool { return o == w })
	if w.session.ended() {
		s.leaveLocked(w.session)
	}
	return w.session.identity != nil || w.session.ended()
}

// leave gives back the session's place among those of its identity, if it has one.
func (s *Server) leave(n *session) {
	s.mu.Lock()
	s.leaveLocked(n)
	s.mu.Unlock()
}

// leaveLocked gives the place to the newcomer that has waited longest, if any. The caller must hold Server.mu.
func (s *Server) leaveLocked(n *session) {
	i := n.identity
	if i == nil {
		return
	}
	n.identity = nil
	if len(i.waiting) > 0 {
		w := i.waiting[0]
		i.waiting = i.waiting[1:]
		w.session.identity = i
		close(w.placed)
		return
	}
	if i.sessions--; i.sessions == 0 {
		delete(s.identities, i.key)
	}
}

// remove unregisters a session that has ended. The session's reader calls it last.
func (s *Server) remove(n *session) {
	s.mu.Lock()
	delete(s.sessions, n)
	s.leaveLocked(n)
	s.mu.Unlock()
	s.closed.add(string(n.reason))
	s.running.Done()
}
