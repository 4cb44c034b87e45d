package proxy

import "time"

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
	s.client.conn.SetReadDeadline(time.Now())
	return true
}

// refetch does what askAgain wants, if anything. The reader calls it wherever it waits.
func (s *session) refetch() {
	q := &s.queue
	q.mu.Lock()
	if q.out == nil || q.out.refetch == nil {
		q.mu.Unlock()
		return
	}
	frame, gone := q.out.refetch, q.lost || q.owed != 1
	q.out.refetch = nil
	q.mu.Unlock()
	if gone {
		return
	}
	s.at.on, s.at.lane = routeOwn, nil
	up, err := s.openOwn()
	if err != nil {
		s.lose(1, false)
	} else {
		_, _ = up.write(frame) // where it fails the pump answers
	}
	s.leaveOwnAlone()
}
