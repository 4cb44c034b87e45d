package proxy

// WantResend asks the session's reader to send frame again over the session's own connection, because its reply on a lane is
// big and other sessions wait behind it, or because it waits itself on a lane that is held, see lane.Rider.
func (s *session) WantResend(frame []byte) bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.lost || q.owed != 1 || q.run.n > 0 {
		return false
	}
	q.out.resend, q.onLane = frame, false
	q.notifyLocked()
	s.interrupt()
	return true
}

// resend sends the command again for which WantResend has asked, if there is one. The session's reader calls it wherever it
// waits.
func (s *session) resend() {
	q := &s.queue
	q.mu.Lock()
	wanted := q.out.resend != nil
	q.mu.Unlock()
	if !wanted {
		return
	}
	s.at.on, s.at.lane = routeOwn, nil
	defer s.leaveOwnAlone()
	for {
		up, err := s.openOwn()
		if err != nil {
			s.Lose(1, false, nil)
			return
		}
		if frame, again := s.takeResend(up); frame != nil {
			_, _ = up.Write(frame) // if it fails, the pump notices and answers
			return
		} else if !again {
			return
		}
	}
}

// takeResend returns the command that is to be sent again, for the caller to write to up, which owes the reply from here
// on. It returns nil if the command is no longer wanted. again is true if up is gone and the caller must open another
// connection.
func (s *session) takeResend(up *ownConn) (frame []byte, again bool) {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	defer q.mu.Unlock()
	p.mu.Lock()
	gone := p.up != up
	p.mu.Unlock()
	frame = q.out.resend
	switch {
	case frame == nil || q.closed || q.lost || q.owed != 1:
		q.out.resend = nil
		return nil, false
	case gone:
		return nil, true
	}
	q.out.resend = nil
	return frame, false
}
