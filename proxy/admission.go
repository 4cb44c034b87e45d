package proxy

import (
	"crypto/tls"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// identity counts the sessions of one client, however many certificates and addresses it has. Guarded by Server.mu.
type identity struct {
	key      [32]byte
	sessions int         // with a place: at most MaxPerIdentity
	leaving  int         // without a place: they wait until their clients have read why, at most maxAside
	waiting  []*newcomer // in the order in which they came: at most maxAside
}

// maxAside is how many sessions of one identity may wait for a place, and how many without one may wait until their clients have read
// why. They hold places of MaxConnections beside the MaxPerIdentity that have one.
func (s *Server) maxAside() int { return max(1, s.settings.Load().maxPerIdentity/4) }

// hasPlace reports whether a session of the identity may get a place now. The caller must hold Server.mu.
func (s *Server) hasPlace(i *identity) bool {
	most := s.settings.Load().maxPerIdentity
	return most <= 0 || i.sessions < most
}

// newcomer is a session that waits for a place.
type newcomer struct {
	session *session
	placed  chan struct{} // closed when the session gets a place
}

// register makes a session of a finished handshake, which gives up its place among the handshakes for that. The session is registered
// before a byte of it is read, so that Close and Recheck see it. If the server is full or has ended, there is no session, register
// returns why, and the handshake keeps its place. Without a session and a reason, the handshake had lost its place before.
func (s *Server) register(h *handshake, conn *tls.Conn) (n *session, refused closeReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.isDone():
		return nil, closeShutdown
	case len(s.sessions) >= s.settings.Load().maxConnections:
		return nil, closeFull
	case !s.pending.finish(h):
		return nil, ""
	}
	n = newSession(s, h.sock, conn)
	s.sessions[n] = struct{}{}
	s.running.Add(1)
	s.buffers.Fix(sessionCost)
	return n, ""
}

// turnAway ends the connection of a client that has finished its handshake and gets no session. Meanwhile it holds a place among
// the handshakes, which bounds how many wait for their clients here, and which newcomers may take. If the server is full, the
// client is told.
func (s *Server) turnAway(h *handshake, conn *tls.Conn, reason closeReason) {
	s.closed.add(string(reason))
	st := conn.ConnectionState()
	h.notify(string(reason), true, nil, &st)
	defer h.sock.Release()
	defer conn.Close()
	if reason != closeFull {
		return
	}
	s.limits[limitConnections].Reached(func(e *zerolog.Event) {
		h.describe(e)
		if sent := st.PeerCertificates; len(sent) > 0 {
			describeCertificate(e, sent[0])
		}
	})
	h.sock.WriteTimeout = s.c.lingerTimeout
	if _, err := conn.Write(textFull); err == nil && conn.CloseWrite() == nil {
		h.linger()
	}
}

// startSession lets a registered session begin, if its client is trusted and has not as many sessions as it may.
func (s *Server) startSession(n *session, st *tls.ConnectionState) {
	n.meet(st)
	n.account().Join(n.quotaKey())
	admitted := s.admit(n)
	if admitted {
		n.auditAccepted(st)
	} else {
		n.turnAway()
	}
	n.event(s.log.Debug()).Str("version", versionName(st.Version)).Bool("resumed", st.DidResume).Msg("session started")
	shares := n.share()
	go n.read() // ends with the session, Close waits for it
	if shares {
		return
	}
	if admitted && !n.ended() {
		n.dialOnce()
	}
	go n.runPump() // ends with the session, whose reader waits for it
}

// turnAway ends a session for which there is no place among those of its identity, and tells its client why. The session's reader has
// not begun yet, so the caller has its rights.
func (s *session) turnAway() {
	s.server.limits[limitIdentity].Reached(s.describe)
	s.lastWord(textIdentityFull, closeIdentityFull)
	if s.leaving == nil { // too many wait already
		s.client.ending = false // so the reader does not linger
		s.end(closeIdentityFull)
	}
}

// admit gives a session one of the places of its identity, and waits for placeTimeout at most until one is free. It returns
// false if it got none; then session.leaving says whether the session may wait until its client has read why. A client without a
// certificate has no identity, and so no limit.
func (s *Server) admit(n *session) bool {
	p := n.peer.Load()
	if p == nil || p.Identity == [32]byte{} {
		return true
	}
	s.mu.Lock()
	i := s.identities[p.Identity]
	if i == nil {
		i = &identity{key: p.Identity}
		s.identities[i.key] = i
	}
	if s.hasPlace(i) {
		i.sessions++
		n.identity = i
		s.mu.Unlock()
		return true
	}
	if len(i.waiting) >= s.maxAside() {
		s.startLeaving(i, n)
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
	if w.session.identity != nil || w.session.ended() {
		return true
	}
	s.startLeaving(i, w.session)
	return false
}

// startLeaving lets a session without a place wait until its client has read why, unless as many do as may. The caller must hold
// Server.mu.
func (s *Server) startLeaving(i *identity, n *session) {
	if i.leaving < s.maxAside() {
		i.leaving++
		n.leaving = i
	}
}

// leave gives back the session's place among those of its identity, if it has one.
func (s *Server) leave(n *session) {
	s.mu.Lock()
	s.leaveLocked(n)
	s.mu.Unlock()
}

// leaveLocked gives the place to the newcomer that has waited longest, if any and if the limit still has it. The caller must hold Server.mu.
func (s *Server) leaveLocked(n *session) {
	i := n.identity
	if i == nil {
		return
	}
	n.identity = nil
	i.sessions--
	s.placeLocked(i)
	s.forgetLocked(i)
}

// placeLocked gives free places of an identity to its newcomers that wait, in turn. The caller must hold Server.mu.
func (s *Server) placeLocked(i *identity) {
	for len(i.waiting) > 0 && s.hasPlace(i) {
		w := i.waiting[0]
		i.waiting = i.waiting[1:]
		w.session.identity = i
		i.sessions++
		close(w.placed)
	}
}

// placeWaiting gives the places of a higher MaxPerIdentity to those that wait for one.
func (s *Server) placeWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.identities {
		s.placeLocked(i)
	}
}

// forgetLocked forgets an identity without a session. The caller must hold Server.mu.
func (s *Server) forgetLocked(i *identity) {
	if i.sessions == 0 && i.leaving == 0 {
		delete(s.identities, i.key)
	}
}

// remove unregisters a session that has ended. The session's reader calls it last.
func (s *Server) remove(n *session) {
	s.mu.Lock()
	delete(s.sessions, n)
	s.leaveLocked(n)
	if i := n.leaving; i != nil {
		i.leaving--
		s.forgetLocked(i)
	}
	s.mu.Unlock()
	n.notifyEnd()
	s.closed.add(string(n.reason))
	s.running.Done()
}
