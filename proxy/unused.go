package proxy

import (
	"cmp"
	"slices"

	"dragontls/proxy/clock"
)

// sweepUnused closes lanes and own connections that no session has used for a while.
func (s *Server) sweepUnused() {
	now := s.now()
	s.lanes.Sweep(now)
	s.proofs.tidy(now.Add(-s.c.proofAge))
	s.each(func(n *session) {
		n.shedDirty()
		n.closeOwn(now.Add(-s.c.laneIdle))
	})
}

// idleConn is a backend connection that nobody uses.
type idleConn struct {
	since clock.Instant
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
	for _, l := range s.lanes.Live() {
		if since, ok := l.Idle(); ok {
			idle = append(idle, idleConn{since, func() bool { l.Retire(); return true }})
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
