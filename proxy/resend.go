package proxy

// WantResend asks the session's reader to send frame again over the session's own connection, because its reply on a lane is
// big and other sessions wait behind it, or because it waits itself on a lane that is held, see lane.Rider. A lane that is held owes the
// reply until the command is sent again, or brings it in the meantime.
func (s *session) WantResend(frame []byte, owed bool) bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.owed != 1 || q.run.n > 0 || owed && q.out.resend != nil {
		return false
	}
	q.out.resend, q.onLane = frame, owed
	q.notifyLocked()
	s.interrupt()
	return true
}

// resend sends the command again for which WantResend has asked, if there is one. Without a connection for that, the session goes on
// waiting for its lane if that still owes the reply. The session's reader calls it wherever it waits.
func (s *session) resend() {
	q := &s.queue
	q.mu.Lock()
	wanted := q.out.resend != nil
	q.mu.Unlock()
	if !wanted {
		return
	}
	defer s.leaveOwnAlone()
	for {
		up, err := s.openOwn()
		if err != nil {
			s.cannotResend()
			return
		}
		if frame, again := s.takeResend(up); frame != nil {
			s.goOver(routeOwn, nil)
			_, _ = up.Write(frame) // if it fails, the pump notices and answers
			return
		} else if !again {
			return
		}
	}
}

// cannotResend gives up sending the command again, because the own connection for it could not be opened, and ends the session if no lane
// owes its reply.
func (s *session) cannotResend() {
	q := &s.queue
	q.mu.Lock()
	lost := q.out.resend != nil && !q.onLane
	q.out.resend = nil
	q.mu.Unlock()
	switch {
	case !lost:
	case s.believes():
		s.end(closeScripts)
	default:
		s.end(closeUnavailable)
	}
}

// takeResend returns the command that is to be sent again, for the caller to write to up, which owes the reply from here
// on. It returns nil if the command is no longer wanted, or its lane brings the reply after all. again is true if up is gone and the
// caller must open another connection.
func (s *session) takeResend(up *ownConn) (frame []byte, again bool) {
	q, p := &s.queue, &s.pump
	take := func(laneOwes bool) bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		p.mu.Lock()
		gone := p.up != up
		p.mu.Unlock()
		switch {
		case q.out.resend == nil || q.closed || q.owed != 1 || q.onLane && !laneOwes:
			q.out.resend = nil
		case gone:
			again = true
		default:
			frame, q.out.resend, q.onLane = q.out.resend, nil, false
		}
		return frame != nil
	}
	if l := s.at.lane; l != nil {
		l.TakeBack(&s.seat, take)
	} else {
		take(false)
	}
	return frame, again
}
