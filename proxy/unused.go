package proxy

import "time"

// sheddingAfter is how long a lane is idle before it gives its buffers back.
const sheddingAfter = int64(time.Second)

// roomForIdleLanes reports whether idle lanes may stay open for clients that seldom send commands: fewer than half of the
// backend connections that are allowed are open.
func (s *Server) roomForIdleLanes() bool {
	most := int64(s.c.Backend.MaxConnections)
	return most <= 0 || s.backendStats.connections.Load() < most/2
}

// isLastOfUsed reports whether l is the only lane of its key and sessions use that key.
func (set *laneSet) isLastOfUsed(l *lane) bool {
	lanes := set.lanes()
	return len(lanes) == 1 && lanes[0] == l && set.refs.Load() > 0
}

// sweepUnused closes lanes and own connections that no session has used for a while. It also replaces lanes that have
// carried a push, and has idle lanes give back their buffers.
func (s *Server) sweepUnused() {
	now := s.now()
	room := s.roomForIdleLanes()
	s.lanes.each(func(l *lane) {
		l.set.slow.Store(false)
		since, idle := l.idleAt()
		stays := s.c.laneIdle
		if room && l.set.isLastOfUsed(l) {
			stays = s.c.laneStay
		}
		switch {
		case idle && now-since >= int64(stays) || !l.up.authenticated() && now-l.opened >= int64(s.c.unprovenLane):
			l.retire()
		case l.pushed.Load():
			l.set.renew(l)
		case idle && now-since >= sheddingAfter:
			l.shed()
		}
	})
	s.lanes.tidy(now)
	s.proofs.tidy(now - int64(s.c.proofAge))
	s.each(func(n *session) {
		n.shedDirty()
		n.closeOwn(now - int64(s.c.laneIdle))
	})
}
