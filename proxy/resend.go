package proxy

// wantResend has the session's reader ask its own connection what a lane was asked: the reply is big, and others wait
// behind it. frame is all that the session has in flight, and nothing of the reply was handed on. false: it is too late.
func (s *session) wantResend(frame []byte) bool {
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

// resend does what wantResend wants, if anything. The reader calls it wherever it waits.
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
			s.lose(1, false)
			return
		}
		if frame, again := s.takeResend(up); frame != nil {
			_, _ = up.write(frame) // where it fails the pump answers
			return
		} else if !again {
			return
		}
	}
}

// takeResend gives the command to whoever writes it to this connection. From here on that one owes the reply. again:
// the connection is gone already.
func (s *session) takeResend(up *backendConn) (frame []byte, again bool) {
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
