package proxy

import "dragontls/proxy/lane"

// moveTo ends what was dialled before the backend moved to another address for the nth time: lanes retire, own connections close once
// nothing is owed, and sessions that cannot leave theirs are closed. Only a session that owns its connection from birth keeps it.
func (s *Server) moveTo(n uint64) {
	s.log.Warn().Uint64("epoch", n).Msg("the backend's name has another address: connections to the last one end")
	s.lanes.Each(func(l *lane.Lane) {
		if l.DialledBefore(n) {
			l.Retire()
		}
	})
	s.each(func(c *session) { c.moveTo(n) })
}

// moveTo is the part of Server.moveTo that concerns one session.
func (s *session) moveTo(n uint64) {
	if s.ownsFromBirth() { // like a direct connection, it stays where it is
		return
	}
	p := &s.pump
	p.mu.Lock()
	old := p.up != nil && p.up.DialledBefore(n)
	if old {
		p.dirty = true
	}
	p.mu.Unlock()
	switch {
	case !old:
	case s.keepsOwn() || s.sticky() || s.waiting():
		s.end(closeMoved)
	default:
		s.shedDirty()
	}
}
