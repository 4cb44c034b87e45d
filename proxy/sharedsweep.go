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
