package proxy

import (
	"errors"
	"io"
	"net"
	"os"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// These values of sharing.tie say how a session is tied to its own connection. The tie never loosens.
const (
	sharesLanes  int32 = iota // it uses lanes, and its own connection only while it must
	ownForLife                // what it did cannot be repeated on another connection
	ownFromBirth              // it has never used another: BACKEND_MODE=paired, or no certificate
)

// keepsOwn reports whether the session uses its own connection for the rest of its life.
func (s *session) keepsOwn() bool { return s.tie.Load() != sharesLanes }

// keepOwn makes the session use its own connection for the rest of its life.
func (s *session) keepOwn() { s.tie.CompareAndSwap(sharesLanes, ownForLife) }

// ownsFromBirth reports whether the session has never used lanes, and never will.
func (s *session) ownsFromBirth() bool { return s.tie.Load() == ownFromBirth }

// share decides and reports whether the session may ride lanes. If it may, its own connection is opened only when it is
// needed. If not, the session keeps an own connection from beginning to end. The caller has not started the session's
// goroutines yet.
func (s *session) share() bool {
	p := s.peer.Load()
	if !s.server.c.Backend.Shared || p == nil || p.Identity == [32]byte{} {
		s.goOver(routeOwn, nil)
		s.tie.Store(ownFromBirth)
		s.rememberLogin()
		return false
	}
	close(s.pump.done)
	s.at.whileLoading = backend.LoadingNoted
	s.proven.Store(s.rememberLogin()) // with a password each connection authenticates when it is dialled: nothing is left to show
	return true
}

// rememberLogin remembers a digest of the user and password that are configured for the client now. It reports whether there is
// a password.
func (s *session) rememberLogin() bool {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	user, password, err := s.credentials()
	s.credential = credentialDigest(user, password)
	return err == nil && password != ""
}

// flushOwn submits the batch to the session's own connection, which it opens if necessary. It returns false if the route
// must be decided again. If it returns true, the batch was submitted or answered by failBatch, or the session has ended.
func (s *session) flushOwn() bool {
	c := &s.client
	s.goOver(routeOwn, nil)
	proofOnly := c.route != routeOwn && !s.proven.Load()
	up, err := s.openOwn()
	if err == nil && c.scripting {
		up, err = s.believeScripts(up)
	}
	if err != nil {
		s.failBatch(err)
		return true
	}
	if s.middle != nil && s.middle != up {
		// The new connection would take the rest of a command for commands of their own.
		s.end(closeBackendError)
		c.flushErr = errEnded
		return true
	}
	if c.hasTx {
		s.closeTransactions()
	}
	if !proofOnly {
		s.proofOnly.Store(false)
	}
	switch s.admitOwn(up) {
	case submitted:
	case submitNever:
		c.flushErr = errEnded
		return true
	case submitGone:
		return false
	}
	s.tally(s.stripe.own) // before the write, so that no reply is written before its command is counted
	if len(c.out.Bytes) > 0 {
		_, err = up.Write(c.out.Bytes)
	}
	if s.middle = nil; c.streamed != nil && !c.skipping {
		s.middle = up
	}
	s.dropBatch()
	s.leaveOwnAlone()
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && !s.ended() {
		c.flushErr = err
		s.end(closeBackendError)
	}
	// After any other error, the pump reads what the backend still had to say, and decides how the session goes on.
	return true
}

// openOwn returns the session's own connection, which it has dialled if there is none; but a session that owns its connection
// from birth gets no second one. Until the reader calls leaveOwnAlone, nobody closes the connection for being idle. openOwn
// waits at most unavailableTimeout, not counting the wait for a token.
func (s *session) openOwn() (*ownConn, error) {
	p := &s.pump
	p.mu.Lock()
	failed := p.up == nil && p.upErr != nil // what is there is the error of a dial for an earlier command
	p.mu.Unlock()
	if failed {
		<-p.done
	}
	for {
		p.mu.Lock()
		p.inUse = true
		up := p.up
		p.mu.Unlock()
		if up != nil {
			s.noteOwn(up)
			return up, nil
		}
		select {
		case <-p.done:
			if s.ownsFromBirth() { // its connection was lost or could not be dialled, and the session ends with it
				return nil, s.dialEnded()
			}
			s.startPump()
		default:
			up, err := s.upstream()
			if up != nil {
				s.noteOwn(up)
			}
			if up != nil || !errors.Is(err, errReopen) {
				return up, err
			}
			<-p.done
		}
	}
}

// dialEnded returns why a session that owns its connection from birth has none any more, and gets no other.
func (s *session) dialEnded() error {
	if _, err := s.upstreamNow(); err != nil {
		return err
	}
	return errEnded
}

// startPump starts a pump for a new own connection. The pump of the last one, if there was one, must have ended.
func (s *session) startPump() {
	p := &s.pump
	p.replies, p.turn, p.whileLoading = resp.Replies{}, noTurn, s.at.whileLoading
	s.dropHeld()
	p.mu.Lock()
	p.done, p.want = make(chan struct{}), make(chan struct{})
	p.upErr, p.wanted, p.dirty = nil, noTime, false
	p.mu.Unlock()
	s.proofOnly.Store(!s.proven.Load())
	go s.runPump() // ends with the connection or the session, whose reader waits for it
}

// admitOwn pushes the batch's slots to the queue. If up is no longer the own connection, it pushes nothing and returns
// submitGone.
func (s *session) admitOwn(up *ownConn) submission {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	p.mu.Lock()
	gone := p.up != up
	p.mu.Unlock()
	if gone {
		q.mu.Unlock()
		return submitGone
	}
	a, t := s.admitLocked(s.client.pend, s.server.now(), false)
	q.mu.Unlock()
	t.Release()
	return a
}

// leaveOwnAlone allows other goroutines to close the own connection while it is idle, unless the reader is in the middle of
// streaming a big command.
func (s *session) leaveOwnAlone() {
	now := s.server.now()
	s.pump.mu.Lock()
	s.pump.inUse = s.client.streamed != nil && !s.client.skipping
	s.pump.used = now
	dirty := s.pump.dirty // the reply may have come before the write returned, when the pump could not close it
	s.pump.mu.Unlock()
	if dirty {
		s.closeOwn(now)
	}
	s.shedProof()
}

// shedProof closes an own connection that was opened only to prove the session, once the backend has answered: from then on
// the session uses lanes. The session's reader calls it after sending, and the pump after receiving: either can be the last
// to finish.
func (s *session) shedProof() {
	if s.proofOnly.Load() && s.proven.Load() {
		s.shedOwn()
	}
}

// shedOwn closes the own connection if it is idle.
func (s *session) shedOwn() { s.closeOwn(s.server.now()) }

func (s *session) hasOwn() bool {
	up, _ := s.upstreamNow()
	return up != nil
}

// ownIdleAt reports whether the own connection may be closed now without the client noticing, and returns when it was last
// used.
func (s *session) ownIdleAt() (since clock.Instant, idle bool) {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	defer q.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, s.ownIdleLocked()
}

// ownIdleLocked is ownIdleAt without the time. The caller must hold queue.mu and pump.mu.
func (s *session) ownIdleLocked() bool {
	return s.ownSettledLocked() && !s.keepsOwn()
}

// ownSettledLocked reports whether nothing is owed or half sent over the own connection. The caller must hold queue.mu and pump.mu.
func (s *session) ownSettledLocked() bool {
	q, p := &s.queue, &s.pump
	return p.up != nil && !p.inUse && q.owed == 0 && q.slots.Len() == 0 && !s.sticky() && !s.uncounting()
}

// endOwn gives up the own connection of a session that has ended: in good order if nothing is owed over it.
func (s *session) endOwn() {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	p.mu.Lock()
	up, settled := p.up, s.ownSettledLocked()
	if settled {
		p.up, p.upErr = nil, errEnded // the session's reader cannot use it any more
	}
	p.mu.Unlock()
	q.mu.Unlock()
	switch {
	case up == nil:
	case settled:
		up.part()
	default:
		up.Close()
	}
}

// closeOwn closes the own connection if it is idle and was not used after since. It reports whether it has closed it.
func (s *session) closeOwn(since clock.Instant) bool {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	p.mu.Lock()
	up := p.up
	ok := s.ownIdleLocked() && p.used <= since
	if ok {
		p.up, p.upErr = nil, errReopen
	}
	p.mu.Unlock()
	q.mu.Unlock()
	if ok {
		up.part()
	}
	return ok
}

// shedDirty closes a dirty own connection, see pump.dirty, if it is idle.
func (s *session) shedDirty() {
	if s.ownIsDirty() {
		s.shedOwn()
	}
}

func (s *session) ownIsDirty() bool {
	s.pump.mu.Lock()
	defer s.pump.mu.Unlock()
	return s.pump.dirty
}

// makeRoomForOwn prepares the batch for a frame of n bytes that goes over the own connection. It returns false if the batch
// could not be submitted.
func (s *session) makeRoomForOwn(n int) bool {
	c := &s.client
	if len(c.out.Bytes)+n > netio.ChunkSize && s.flush() != nil {
		return false
	}
	s.wantOwn()
	c.stateful = true
	return true
}

// needsNoOwn reports whether the session has no own connection, and neither its batch nor its state needs one.
func (s *session) needsNoOwn() bool {
	return !s.uncounting() && s.client.route != routeOwn && !s.hasOwn() && !s.keepsOwn() && !s.sticky()
}

// ownEnded ends the session, or lets it go on, after reading its own connection has failed with err. The session goes on if
// the connection owes it nothing and it does not depend on the connection otherwise. The pump calls it last.
func (s *session) ownEnded(err error) {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	p.mu.Lock()
	quit := p.quitting()
	owes := q.owed > 0 && !q.onLane && q.out.resend == nil // a command that is to be sent again was not sent here yet
	goesOn := !p.replies.Open() && !quit && !owes && !s.believes() && !s.keepsOwn() && !s.sticky()
	if goesOn {
		p.up, p.upErr = nil, errReopen
	}
	p.mu.Unlock()
	q.mu.Unlock()
	if !goesOn {
		s.endWithBackend(err)
		return
	}
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded): // the proxy ended it itself
	case errors.Is(err, io.EOF):
	default:
		s.server.backend.Count("lost")
	}
}

// ownUser reports whether dragontls authenticates the session's own connection. It waits until there is one, and returns
// true if none can be opened.
func (s *session) ownUser() bool {
	up, err := s.openOwn()
	s.leaveOwnAlone()
	return err != nil || up.Authenticated()
}
