package proxy

import "time"

// sheddingAfter: a lane that has been idle for so long gives its buffers back.
const sheddingAfter = int64(time.Second)

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
		case idle && now-since >= sheddingAfter:
			l.shed()
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
