package proxy

import (
	"cmp"
	"slices"
	"time"
)

// sheddingAfter is how long a lane is idle before it gives its buffers back.
const sheddingAfter = int64(time.Second)

// isLastOfUsed reports whether l is the only lane of its key and sessions use that key.
func (set *laneSet) isLastOfUsed(l *lane) bool {
	lanes := set.lanes()
	return len(lanes) == 1 && lanes[0] == l && set.refs.Load() > 0
}

// sweepUnused closes lanes and own connections that no session has used for a while. It also replaces lanes that have
// carried a push, and has idle lanes give back their buffers.
func (s *Server) sweepUnused() {
	now := s.now()
	spare := s.backend.HasSpare()
	s.lanes.each(func(l *lane) {
		l.set.slow.Store(false)
		since, idle := l.idleAt()
		stays := s.c.laneIdle
		if spare && l.set.isLastOfUsed(l) {
			stays = s.c.laneStay
		}
		switch {
		case idle && now-since >= int64(stays) || !l.up.Authenticated() && now-l.opened >= int64(s.c.unprovenLane):
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

// idleConn is a backend connection that nobody uses.
type idleConn struct {
	since int64
	close func() bool // reports whether it was idle still
}

// closeIdlest closes up to n backend connections, those that have been idle for longest. It looks at connections only: there
// may be many more sessions.
func (s *Server) closeIdlest(n int) {
	defer func() {
		if v := recover(); v != nil {
			s.lanePanic(v)
		}
	}()
	var idle []idleConn
	for _, l := range s.lanes.live.list() {
		if since, ok := l.idleAt(); ok {
			idle = append(idle, idleConn{since, func() bool { l.retire(); return true }})
		}
	}
	for _, o := range s.owners.list() {
		if since, ok := o.ownIdleAt(); ok {
			idle = append(idle, idleConn{since, func() bool { return o.closeOwn(since) }})
		}
	}
	slices.SortFunc(idle, func(a, b idleConn) int { return cmp.Compare(a.since, b.since) })
	for _, c := range idle {
		if n == 0 {
			return
		}
		if c.close() {
			n--
		}
	}
}
