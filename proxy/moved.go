package proxy

import (
	"dragontls/proxy/backend"
	"dragontls/proxy/lane"
	"dragontls/proxy/resp"
)

// moved ends what was dialled before the backend moved: lanes retire, own connections close once nothing is owed, and sessions that cannot
// leave theirs are closed if it leads to another address. If it moved in place they keep theirs, as a session always does that owns its
// connection from birth.
func (s *Server) moved(m backend.Move) {
	if !m.InPlace {
		s.backend.Recovered("moved")
		s.log.Warn().Str("backend", s.backend.URL()).Uint64("epoch", m.N).Str("address", m.Address).Msg("the backend's name has another address: connections to the last one end")
	}
	s.lanes.Each(func(l *lane.Lane) {
		if l.DialledBefore(m.N) {
			l.Retire()
		}
	})
	s.each(func(c *session) { c.moveTo(m.N) })
}

// moveTo is the part of Server.moved that concerns one session.
func (s *session) moveTo(n uint64) {
	if s.ownsFromBirth() { // like a direct connection, it stays where it is
		return
	}
	p := &s.pump
	p.mu.Lock()
	old := p.up != nil && p.up.DialledBefore(n)
	elsewhere := old && s.server.backend.LeadsElsewhere(p.up.Conn)
	if old {
		p.dirty = true
	}
	p.mu.Unlock()
	switch {
	case !old:
	case elsewhere && (s.keepsOwn() || s.sticky() || s.waiting()):
		s.end(closeMoved)
	default:
		s.shedDirty()
	}
}

// suspect tells the backend that up has brought a reply, if that says that up leads to a replica: an error, or the reply to an EXEC in
// which a command has got such an error. A session that begins from here on does not ride a lane that may lead there too. The pump calls
// it for its own connection.
func (s *Server) suspect(up *backend.Conn, r *resp.Replies, ofExec bool) {
	if ofExec && r.Found() || r.Kind() == '-' && backend.AnswersAsReplica(r.Line()) {
		s.lanes.Suspect(up)
	}
}
