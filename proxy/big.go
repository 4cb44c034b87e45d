package proxy

import "dragontls/proxy/command"

// dispatchBig judges a command that is too big to be held, by its beginning in head, and begins to pass it on or to drop it.
// stream does the rest. It returns false if the session takes no more from its client.
func (s *session) dispatchBig(head []byte) bool {
	c := &s.client
	if now := s.rules(); now != c.rules && !s.changeRules(now) {
		return false
	}
	name := c.cmds.Name(head)
	cmd, sub, exact := s.client.settings.commands.Lookup(name)
	if len(sub) == 0 {
		sub = c.cmds.Sub(head)
	}
	t := cmd.Traits(sub)
	text, by := s.refusalOfBig(cmd, t, name, sub, exact)
	c.streamed, c.skipping = cmd, text != nil
	if text != nil {
		return s.refuse(cmd, text, by)
	}
	c.streamed = nil // classifyBig may flush the batch, which holds only whole commands so far
	how := s.classifyBig(cmd, exact, sub)
	if c.streamed = cmd; how != classifiedToQueue {
		return how == classifiedAnswered
	}
	if t&command.MayBlock != 0 {
		t |= command.Blocking
	}
	// This adds the slot alone; stream adds the bytes. A command of this size has arguments, and with arguments RESET, QUIT,
	// MULTI, EXEC and DISCARD are not what these traits stand for.
	return s.special(cmd, t&^(command.Resets|command.Quits|command.OpensMulti|command.EndsMulti|command.Databaseless), nil, 2)
}

// refusalOfBig returns the refusal of a command that is too big to be held, or nil if it may pass. name and sub are nil if
// the part that is held does not contain them whole.
func (s *session) refusalOfBig(cmd *command.Command, t command.Trait, name, sub []byte, exact bool) (text []byte, by deniedBy) {
	c := &s.client
	if text := cmd.Refusal(name, sub, exact); text != nil {
		return text, formOr(byDenyCommands, text)
	}
	if c.rules != nil {
		if text := s.ruled(cmd, name, sub); text != nil {
			return text, formOr(byUsersFile, text)
		}
	}
	if text := cmd.RefusalOfBig(name, sub, c.rules); text != nil {
		return text, byForm
	}
	if t&command.Uncounted != 0 && c.tx == txDoomed {
		return textDoomed, byTransaction
	}
	return nil, 0
}

// classifyBig is classify for a command that is too big to be held. Only its name and its subcommand are known.
func (s *session) classifyBig(cmd *command.Command, exact bool, sub []byte) classified {
	c := &s.client
	c.next = nextCommand{}
	class := command.Life
	if exact && cmd.Class(sub).LeavesNoState() {
		class = command.Own
	}
	if !c.recovering && c.out.Replies > 0 && s.flush() != nil {
		return classifiedNoMore
	}
	if c.recovering {
		c.streamed, c.skipping = cmd, true
		if !s.answerLost(cmd, class == command.Life) {
			return classifiedNoMore
		}
		return classifiedAnswered
	}
	s.wantOwn()
	switch {
	case s.asking:
		s.classifyAsked(class)
	case class == command.Life:
		c.stateful = true
		s.keepOwn()
		if isScript(cmd, cmd.Class(sub)) {
			s.database.Store(databaseUnknown)
		}
	}
	return classifiedToQueue
}

// stream passes on, or drops, what the buffer holds of a big command. It returns false if the reader must read more of it
// first, or if the command cannot go on: it is malformed, or the batch could not be submitted.
func (s *session) stream() bool {
	c := &s.client
	in := c.buf[c.r:c.w]
	var n int
	var done bool
	var err error
	if c.skipping {
		n, done, err = c.cmds.Skip(in)
	} else {
		// Re-encoded headers are never longer than those that came, except the first of a frame.
		if cap(c.out.Bytes)-len(c.out.Bytes) < len(in)+64 {
			if s.flush() != nil {
				return false
			}
			if c.skipping { // the backend connection was lost
				return true
			}
			if c.out.Chunk == nil {
				c.out.Chunk = s.account().Chunk()
				c.out.Bytes = c.out.Chunk[:0]
			}
		}
		if room := cap(c.out.Bytes) - 64; len(in) > room {
			in = in[:room]
		}
		c.out.Bytes, n, done, err = c.cmds.Stream(c.out.Bytes, in)
		c.route = routeOwn // in the middle of a command the session stays on its own connection
	}
	if err != nil {
		s.abandon(err)
		return false
	}
	c.r += n
	if done {
		c.streamed = nil
	}
	return n > 0
}

// abandon ends the session because the big command that it streams is malformed. If the command was passed on, the backend
// has only a part of it and will not reply: the client gets all replies before it, and then the protocol error.
func (s *session) abandon(err error) {
	c := &s.client
	c.streamed = nil
	c.r = c.w
	if !c.skipping && !s.uncounting() {
		if s.flush() != nil || !s.hold(func() bool { return s.queue.owed <= 1 }) {
			return
		}
		if !s.queue.forget() {
			s.end(closeProtocol)
			return
		}
	}
	s.protocolError(err)
}
