package proxy

// askAgain has the session's reader ask its own connection what a lane was asked: the reply is big, and others wait
// behind it. frame is all that the session has in flight, and nothing of the reply was handed on. false: it is too late.
func (s *session) askAgain(frame []byte) bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.lost || q.owed != 1 || q.run.n > 0 {
		return false
	}
	q.out.refetch, q.onLane = frame, false
	q.notifyLocked()
	s.interrupt()
	return true
}

// refetch does what askAgain wants, if anything. The reader calls it wherever it waits.
func (s *session) refetch() {
	q := &s.queue
	q.mu.Lock()
	wanted := q.out.refetch != nil
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
		if frame, again := s.takeRefetch(up); frame != nil {
			_, _ = up.write(frame) // where it fails the pump answers
			return
		} else if !again {
			return
		}
	}
}

// takeRefetch gives the command to whoever writes it to this connection. From here on that one owes the reply. again:
// the connection is gone already.
func (s *session) takeRefetch(up *backendConn) (frame []byte, again bool) {
	q, p := &s.queue, &s.pump
	q.mu.Lock()
	defer q.mu.Unlock()
	p.mu.Lock()
	gone := p.up != up
	p.mu.Unlock()
	frame = q.out.refetch
	switch {
	case frame == nil || q.closed || q.lost || q.owed != 1:
		q.out.refetch = nil
		return nil, false
	case gone:
		return nil, true
	}
	q.out.refetch = nil
	return frame, false
}
