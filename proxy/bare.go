package proxy

import "dragontls/proxy/command"

// While a script runs for long, a backend refuses SELECT, and so to set up a connection for a session with a database. But some
// commands need no database, above all those that end the script: for such a command the session's own connection is opened
// without it ("bare"), and closed after the reply, before any other command.

// mayGoBare reports whether a bare connection would be of use, and could take the place of the own connection: the session has
// a state that the backend may refuse to restore, or a client that believes in scripts of which the backend may refuse to speak, and
// nothing ties it to a connection.
func (s *session) mayGoBare() bool {
	c, p := &s.client, &s.pump
	p.mu.Lock()
	restores := s.state.Database != 0 || s.state.ReadOnly || s.believes()
	p.mu.Unlock()
	return restores && !s.keepsOwn() && !s.sticky() && c.tx == txNone && c.whole == 0
}

// sendBare submits what came before, sends a command that needs no database, over a bare connection if the backend grants no other, and
// waits for the reply. If what came before could not be sent, nor is the command. sendBare returns false if the session takes no more from
// its client.
func (s *session) sendBare(cmd *command.Command, frame []byte) bool {
	if s.flush() != nil {
		return false
	}
	if s.client.recovering {
		return s.answerLost(cmd, false)
	}
	s.wantOwn()
	s.count(cmd)
	s.queueFrame(frame, slotReplies, false)
	s.setBare(true)
	err := s.flush()
	s.setBare(false)
	if err != nil || !s.hold(func() bool { return s.queue.owed == 0 }) {
		return false
	}
	s.dropBare()
	return true
}

// setBare notes whether the command that may have the own connection opened needs no database.
func (s *session) setBare(bare bool) {
	s.pump.mu.Lock()
	s.pump.bare = bare
	s.pump.mu.Unlock()
}

// wantsBare reports what setBare has noted.
func (s *session) wantsBare() bool {
	s.pump.mu.Lock()
	defer s.pump.mu.Unlock()
	return s.pump.bare
}

// dropBare closes the own connection if it is bare, and nothing has tied the session to it since. Nothing may be owed on it.
func (s *session) dropBare() {
	if s.keepsOwn() || s.sticky() || s.client.tx != txNone {
		return // it is as a RESET has left it
	}
	p := &s.pump
	p.mu.Lock()
	up := p.up
	if up != nil && up.Bare {
		p.up, p.upErr = nil, errReopen
	} else {
		up = nil
	}
	p.mu.Unlock()
	if up != nil {
		up.part()
	}
}
