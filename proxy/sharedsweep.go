package proxy

// sweepShared closes what shared sessions do not use any more.
func (s *Server) sweepShared() {
	now := s.now()
	s.lanes.each(func(l *lane) {
		since, idle := l.idleAt()
		switch {
		case idle && now-since >= int64(s.c.laneIdle) || !l.up.authenticated() && now-l.opened >= int64(s.c.unprovenLane):
			l.retire()
		case l.pushed.Load():
			l.set.renew(l)
		}
	})
	s.lanes.tidy(now)
	s.each(func(n *session) {
		if n.isShared() {
			n.shedDirty()
			n.closeOwn(now - int64(s.c.laneIdle))
		}
	})
}

// closeLongestIdle closes the backend connection that has been idle for longest, to make room for another. false: none is.
func (s *Server) closeLongestIdle() bool {
	var longest int64
	var close func()
	s.lanes.each(func(l *lane) {
		if since, idle := l.idleAt(); idle && (close == nil || since < longest) {
			longest, close = since, l.retire
		}
	})
	s.each(func(n *session) {
		if !n.isShared() {
			return
		}
		if since, idle := n.ownIdleAt(); idle && (close == nil || since < longest) {
			longest, close = since, func() { n.closeOwn(since) }
		}
	})
	if close == nil {
		return false
	}
	close()
	return true
}
