package proxy

import "crypto/tls"

// identity counts the sessions of one client, however many certificates and addresses it has. Guarded by Server.mu.
type identity struct {
	key      [32]byte
	sessions int
}

// startSession registers the session before a byte of it is read.
func (s *Server) startSession(sock *socket, conn *tls.Conn, st tls.ConnectionState) {
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
	}
	s.mu.Unlock()
	if refused != "" {
		s.closed.add(string(refused))
		conn.Close()
		sock.release()
		return
	}
	n.meet(&st)
	if !s.admit(n) {
		n.event(s.log.Info()).Str("client", n.peer.Load().Name).Msg("client has as many connections as it may")
		n.end(closeIdentityFull)
	}
	n.auditAccepted(&st)
	n.event(s.log.Debug()).Str("version", versionName(st.Version)).Bool("resumed", st.DidResume).Msg("session started")
	go n.read() // ends with the session, Close waits for it
	if !n.ended() {
		n.dialOnce()
	}
	go n.runPump() // ends with the session, whose reader waits for it
}

// admit gives a session one of the places of its identity; false: all are taken. Without a certificate there is no
// identity, and no limit.
func (s *Server) admit(n *session) bool {
	p := n.peer.Load()
	if s.c.MaxPerIdentity <= 0 || p == nil || p.Identity == [32]byte{} {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.identities[p.Identity]
	if i == nil {
		i = &identity{key: p.Identity}
		s.identities[i.key] = i
	}
	if i.sessions >= s.c.MaxPerIdentity {
		return false
	}
	i.sessions++
	n.identity = i
	return true
}

// leaveLocked gives the place back, if the session has one.
func (s *Server) leaveLocked(n *session) {
	i := n.identity
	if i == nil {
		return
	}
	n.identity = nil
	if i.sessions--; i.sessions == 0 {
		delete(s.identities, i.key)
	}
}

func (s *Server) remove(n *session) {
	s.mu.Lock()
	delete(s.sessions, n)
	s.leaveLocked(n)
	s.mu.Unlock()
	s.closed.add(string(n.reason))
	s.running.Done()
}
