package proxy

// moveTo ends what belongs to earlier epochs: lanes retire, own connections close once nothing is owed, and who cannot
// leave its own is closed.
func (s *Server) moveTo(n uint64) {
	s.log.Warn().Uint64("epoch", n).Msg("the backend's name has another address: connections to the last one end")
	s.lanes.each(func(l *lane) {
		if l.up.epoch < n {
			l.retire()
		}
	})
	s.each(func(c *session) { c.moveTo(n) })
}

func (s *session) moveTo(n uint64) {
	if s.ownsFromBirth() { // like a direct connection, it stays where it is
		return
	}
	p := &s.pump
	p.mu.Lock()
	old := p.up != nil && p.up.epoch < n
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
