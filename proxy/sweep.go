package proxy

import "time"

// sweep is the sweeper's goroutine: it calls sweepOnce at intervals until Close.
func (s *Server) sweep() {
	defer s.running.Done()
	interval := s.sweepInterval()
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		if now := s.sweepInterval(); now != interval {
			interval = now
			t.Reset(interval)
		}
		select {
		case <-s.done:
			return
		case <-t.C:
		}
		s.sweepOnce()
		s.limits.tell()
		s.tellMore()
	}
}

// sweepInterval follows IdleTimeout.
func (s *Server) sweepInterval() time.Duration {
	interval := s.c.sweepInterval
	if idle := s.settings.Load().idleTimeout; idle > 0 {
		interval = max(10*time.Millisecond, min(interval, idle/4))
	}
	return interval
}

// sweepOnce closes sessions that were idle for IdleTimeout and those whose certificate is about to end, lets idle sessions
// rest, and closes or forgets what is no longer used.
func (s *Server) sweepOnce() {
	s.closeIdle()
	s.closeExpired()
	s.restIdle()
	s.backend.TidyTokens()
	s.sweepUnused()
}

// closeIdle ends the sessions that were idle for IdleTimeout, if there is one.
func (s *Server) closeIdle() {
	idle := s.settings.Load().idleTimeout
	if idle <= 0 {
		return
	}
	limit := s.now().Add(-idle)
	s.each(func(n *session) {
		if n.lastActive.Load() < limit && !n.owing() && !n.uncounting() {
			n.end(closeIdle)
		}
	})
}

// watchLanes is the goroutine that calls lane.Sets.Watch at intervals until Close.
func (s *Server) watchLanes() {
	defer s.running.Done()
	t := time.NewTicker(s.c.watchInterval)
	defer t.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-t.C:
		}
		s.watchOnce()
	}
}

// watchOnce watches lanes once. A panic ends nobody.
func (s *Server) watchOnce() {
	defer func() {
		if v := recover(); v != nil {
			s.lanePanic(v)
		}
	}()
	s.lanes.Watch(s.now())
}
