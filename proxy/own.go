package proxy

import (
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"

	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// How a session is tied to its own connection. The tie never loosens.
const (
	sharesLanes  int32 = iota // it uses lanes, and its own connection while it has to
	ownForLife                // what it did cannot be repeated on another connection
	ownFromBirth              // it has never used another: BACKEND_MODE=paired, or no certificate
)

// keepsOwn reports whether the session uses its own connection for the rest of its life.
func (s *session) keepsOwn() bool { return s.tie.Load() != sharesLanes }

// keepOwn has the session use its own connection for the rest of its life.
func (s *session) keepOwn() { s.tie.CompareAndSwap(sharesLanes, ownForLife) }

func (s *session) ownsFromBirth() bool { return s.tie.Load() == ownFromBirth }

// share decides whether the session may ride lanes, and reports it: its own connection is opened when it is needed then.
// Any other keeps its own from the beginning to the end. It is called before the session's goroutines start.
func (s *session) share() bool {
	p := s.peer.Load()
	if !s.server.c.Backend.Shared || p == nil || p.Identity == [32]byte{} {
		s.at.on = routeOwn
		s.tie.Store(ownFromBirth)
		return false
	}
	close(s.pump.done)
	s.beginsProven()
	return true
}

// beginsProven sees whether the session has a password: the backend wants no more words of it then.
func (s *session) beginsProven() {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	l := s.login()
	if l.credentials != nil {
		user, password, err := l.credentials()
		s.proven.Store(err == nil && password != "")
		s.credential = sha256.Sum256([]byte(user + "\x00" + password))
	}
}

// flushOwn submits the batch to the session's own connection, which it opens if need be. false: the route has to be
// decided anew.
func (s *session) flushOwn() bool {
	c := &s.client
	proofOnly := c.route != routeOwn && !s.proven.Load()
	up, err := s.openOwn()
	if err != nil {
		s.failBatch(err)
		return true
	}
	if s.middle != nil && s.middle != up {
		// The rest of a command would be taken for commands.
		s.end(closeBackendError)
		c.flushErr = errEnded
		return true
	}
	s.closeTransactions()
	if !proofOnly {
		s.proofOnly.Store(false)
	}
	switch s.admitOwn(up) {
	case submitted:
	case submitLost:
		s.failBatch(errLost)
		s.leaveOwnAlone()
		return true
	case submitLater:
		s.leaveOwnAlone()
		return !s.park(func() bool { return s.queue.out.littleUnsent() || s.queue.lost })
	case submitNever:
		c.flushErr = errEnded
		return true
	case submitGone:
		return false
	}
	s.tally(s.stripe.own) // first: no reply is out before its command is counted
	if len(c.out) > 0 {
		_, err = up.write(c.out)
	}
	if s.middle = nil; c.streamed != nil && !c.skipping {
		s.middle = up
	}
	s.batchSent()
	s.leaveOwnAlone()
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && !s.ended() {
		c.flushErr = err
		s.end(closeBackendError)
	}
	// Otherwise the pump reads what the backend still had to say, and decides.
	return true
}

// openOwn returns the session's own connection, and keeps it open until leaveOwnAlone. It waits at most
// unavailableTimeout.
func (s *session) openOwn() (*backendConn, error) {
	p := &s.pump
	for {
		p.mu.Lock()
		p.inUse = true
		up := p.up
		p.mu.Unlock()
		if up != nil {
			return up, nil
		}
		select {
		case <-p.done:
			if s.ownsFromBirth() { // its connection, or the one dial for it, was lost: the session ends with it
				return nil, s.dialEnded()
			}
			s.startPump()
		default:
			if up, err := s.upstream(); up != nil || !errors.Is(err, errReopen) {
				return up, err
			}
			<-p.done
		}
	}
}

// dialEnded returns why a session without a connection cannot have one any more.
func (s *session) dialEnded() error {
	if _, err := s.upstreamNow(); err != nil {
		return err
	}
	return errEnded
}

// startPump begins anew: the last own connection, if there was one, is gone.
func (s *session) startPump() {
	p := &s.pump
	p.replies, p.turn = resp.Replies{}, noTurn
	s.dropHeld()
	p.mu.Lock()
	p.done, p.want = make(chan struct{}), make(chan struct{})
	p.upErr, p.wanted, p.closing, p.dirty = nil, noTime, false, false
	p.mu.Unlock()
	s.proofOnly.Store(!s.proven.Load())
	go s.runPump() // ends with the connection or the session, whose reader waits for it
}

// admitOwn pushes the batch's slots, unless its connection is gone.
func (s *session) admitOwn(up *backendConn) submission {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	p.mu.Lock()
	gone := p.up != up
	p.mu.Unlock()
	if gone && !q.lost {
		q.mu.Unlock()
		return submitGone
	}
	a, t := s.admitLocked(s.client.pend, s.server.now(), false)
	q.mu.Unlock()
	t.release()
	return a
}

// leaveOwnAlone lets others close the connection while it is idle, but in the middle of a command.
func (s *session) leaveOwnAlone() {
	now := s.server.now()
	s.pump.mu.Lock()
	s.pump.inUse = s.client.streamed != nil && !s.client.skipping
	s.pump.used = now
	s.pump.mu.Unlock()
	s.shedProof()
}

// shedProof closes an own connection that was opened only to see that the backend serves the session, once it has: the
// session needs lanes from then on. Both who sends and who takes replies look, since either may be last.
func (s *session) shedProof() {
	if s.proofOnly.Load() && s.proven.Load() {
		s.closeOwn(s.server.now())
	}
}

func (s *session) hasOwn() bool {
	up, _ := s.upstreamNow()
	return up != nil
}

// ownIdleAt tells since when the own connection could be closed without anybody noticing.
func (s *session) ownIdleAt() (since int64, idle bool) {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	defer q.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, s.ownIdleLocked()
}

func (s *session) ownIdleLocked() bool {
	q, p := &s.queue, &s.pump
	return p.up != nil && !p.inUse && q.owed == 0 && q.slots.len() == 0 && !s.keepsOwn() && !s.sticky() && !s.uncounting()
}

// closeOwn closes the own connection if it is idle and was not used after since.
func (s *session) closeOwn(since int64) bool {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	p.mu.Lock()
	up := p.up
	ok := s.ownIdleLocked() && p.used <= since
	if ok {
		p.up, p.upErr, p.closing = nil, errReopen, true
	}
	p.mu.Unlock()
	q.mu.Unlock()
	if ok {
		up.close()
	}
	return ok
}

// shedDirty closes the own connection where nothing of it is to be used again.
func (s *session) shedDirty() {
	s.pump.mu.Lock()
	dirty := s.pump.dirty
	s.pump.mu.Unlock()
	if dirty {
		s.closeOwn(s.server.now())
	}
}

// makeRoomForOwn prepares the batch for a frame that goes over the own connection.
func (s *session) makeRoomForOwn(n int) bool {
	c := &s.client
	c.next = nextCommand{}
	if len(c.out)+n > netio.ChunkSize && s.flush() != nil {
		return false
	}
	s.wantOwn()
	c.stateful = true
	return true
}

// needsNoOwn says that nothing of the session is on an own connection.
func (s *session) needsNoOwn() bool {
	return !s.uncounting() && s.client.route != routeOwn && !s.hasOwn() && !s.keepsOwn() && !s.sticky()
}

// ownEnded: the own connection is gone. Where that can be told to the client in order, and nothing of
// it is half out, the session goes on. The pump calls it last.
func (s *session) ownEnded(err error) {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	p.mu.Lock()
	closing := p.closing
	quit := p.awaited == awaitQuit && p.outcome != outcomeRefused
	owes := q.owed > 0 && !q.onLane && q.out.resend == nil // which was not sent yet
	goesOn := !p.replies.Open() && (closing || !quit && (!owes && !s.keepsOwn() && !s.sticky() || s.canLoseOwnLocked()))
	if goesOn {
		p.up, p.upErr = nil, errReopen
	}
	p.mu.Unlock()
	if goesOn && !closing && owes {
		s.loseAllLocked()
	}
	q.mu.Unlock()
	if !goesOn {
		s.endWithBackend(err)
		return
	}
	switch {
	case closing, errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded): // we closed it
	case !owes && errors.Is(err, io.EOF):
	default:
		s.server.backendStats.errors.add("lost")
	}
}

// canLoseOwnLocked says that what is owed can be answered by errors of ours, and the session be another connection's.
func (s *session) canLoseOwnLocked() bool {
	q := &s.queue
	if s.keepsOwn() || s.sticky() || q.uncounted() || q.closed || !q.answered || s.pump.replies.Open() || s.pump.awaited != awaitNothing && s.pump.outcome == outcomeNone {
		return false
	}
	if q.run.n > 0 && q.run.kind != slotReplies {
		return false
	}
	for i := range q.slots.len() {
		if k := q.slots.at(i).kind; k != slotReplies && k != slotLocal && k != slotFinal {
			return false
		}
	}
	return true
}
