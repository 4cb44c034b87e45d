package proxy

import (
	"cmp"
	"slices"
	"time"
)

// sweep closes sessions that were idle for IdleTimeout or whose certificate ends, and makes room when memory stays scarce.
func (s *Server) sweep() {
	defer s.running.Done()
	interval := time.Second
	if s.c.IdleTimeout > 0 {
		interval = max(10*time.Millisecond, min(interval, s.c.IdleTimeout/4))
	}
	t := time.NewTicker(interval)
	defer t.Stop()
	wasScarce := false
	var places limitTeller
	for {
		select {
		case <-s.done:
			return
		case <-t.C:
		}
		if s.c.IdleTimeout > 0 {
			s.closeIdle()
		}
		s.closeExpired()
		s.dialPaces.tidy(s.now())
		s.tellPlaces(&places)
		if s.c.Backend.Shared {
			s.sweepShared()
		}
		scarce := s.buffers.scarce()
		if scarce && wasScarce {
			s.relieve()
		}
		wasScarce = scarce
	}
}

func (s *Server) closeIdle() {
	limit := s.now() - int64(s.c.IdleTimeout)
	s.each(func(n *session) {
		if n.lastActive.Load() < limit && !n.owing() && !n.subscribed.Load() {
			n.end(closeIdle)
		}
	})
}

// relieve closes those who hold half a command, an eighth of them, those silent for longest first: what they hold
// would never come back by itself, and every reader waits for it.
func (s *Server) relieve() {
	silent := s.now() - int64(s.c.relieveTimeout)
	var holders []*session
	s.each(func(n *session) {
		if n.hand.Load() == handHalf && !n.owing() && n.lastActive.Load() < silent {
			holders = append(holders, n)
		}
	})
	slices.SortFunc(holders, func(a, b *session) int { return cmp.Compare(a.lastActive.Load(), b.lastActive.Load()) })
	for _, n := range holders[:(len(holders)+7)/8] {
		n.end(closeMemory)
	}
}

// waitForMemory pauses a reader while too much is lent; done ends the wait.
func (s *Server) waitForMemory(done <-chan struct{}) {
	for s.buffers.scarce() {
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
