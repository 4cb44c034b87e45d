package proxy

import (
	"errors"
	"strings"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// dispatch judges a command that is held as a whole, and adds it or its refusal to the batch. It returns false if the
// session takes no more from its client. hot
func (s *session) dispatch(frame []byte) bool {
	c := &s.client
	if now := s.rules(); now != c.rules && !s.changeRules(now) {
		return false
	}
	name := c.cmds.Name(frame)
	cmd, rest, exact := s.server.commands.Lookup(name)
	sub := rest
	if len(rest) == 0 {
		sub = c.cmds.Sub(frame)
	}
	args := c.cmds.Args()
	canonical := c.cmds.Canonical()
	if !canonical {
		frame = c.cmds.AppendCanonical(nil, frame)
	}
	if text := cmd.Refusal(name, sub, exact); text != nil {
		return s.refuse(cmd, text)
	}
	if c.rules != nil {
		if text := s.ruled(cmd, name, sub); text != nil {
			return s.refuse(cmd, text)
		}
	}
	t := cmd.Traits(sub)
	if t&(command.Inspected|command.MayBlock) != 0 {
		args := resp.SplitArgs(frame, nil)
		if text := cmd.Inspect(args, rest, !s.clientAuth() && s.ownUser()); text != nil {
			return s.refuse(cmd, text)
		}
		if t&command.MayBlock != 0 && command.MentionsBlock(args) {
			t |= command.Blocking
		}
	}
	switch s.classify(cmd, exact, sub, frame, args) {
	case classifiedAnswered:
		return true
	case classifiedNoMore:
		return false
	}
	if t == 0 {
		s.count(cmd)
		s.queueFrame(frame, slotReplies, false)
		return true
	}
	if !exact {
		// The backend does not know such a name: "EXEC " with its blank is not EXEC.
		t &^= command.OpensMulti | command.EndsMulti | command.Resets | command.Quits | command.Databaseless
	}
	return s.special(cmd, t, frame, args)
}

// special adds to the batch a command whose traits change how the session goes on. For RESET, QUIT and the EXEC of a doomed
// transaction it waits for the reply. It returns false if the session takes no more from its client.
func (s *session) special(cmd *command.Command, t command.Trait, frame []byte, args int) bool {
	c := &s.client
	switch {
	case t&command.Uncounted != 0:
		if c.tx == txDoomed {
			return s.refuse(cmd, textDoomed)
		}
		s.count(cmd)
		s.keepOwn()
		if !s.uncounting() {
			s.queue.counting.Store(countedBefore)
			c.pend = append(c.pend, slot{kind: slotUncounted})
		}
		s.queueFrame(frame, slotReplies, false)
		return true
	case t&command.Resets != 0:
		return s.reset(cmd, frame, args)
	case t&command.Quits != 0 && args == 1:
		return s.quit(cmd, frame)
	case t&command.Databaseless != 0 && s.mayGoBare():
		return s.sendBare(cmd, frame)
	}
	s.count(cmd)
	c.scripting = c.scripting || t&command.Scripting != 0
	switch {
	case args != 1:
	case t&command.OpensMulti != 0:
		s.transact(txBegins)
	case t&command.EndsMulti != 0:
		if c.tx == txDoomed && cmd.Name == "EXEC" {
			return s.discard()
		}
		if c.tx == txQuits && cmd.Name == "EXEC" && !s.uncounting() {
			return s.execQuit(frame)
		}
		s.transact(txEnds)
	}
	s.queueFrame(frame, slotReplies, t&command.Blocking != 0)
	return true
}

// refuse answers a command with text, in its place among the replies. Inside MULTI that dooms the transaction. If replies
// cannot be counted, the session ends with this reply. It returns false if the session takes no more from its client.
func (s *session) refuse(cmd *command.Command, text []byte) bool {
	c := &s.client
	s.stripe.local[cmd.ID].Add(1)
	c.commands++
	if s.server.auditsCommands {
		s.auditCommand(cmd, true)
	}
	if c.whole > 0 {
		s.breakTransaction()
	}
	s.transact(txDisturbs)
	if s.uncounting() {
		s.lastWord(text, closeRefused)
		return false
	}
	c.pend = append(c.pend, slot{kind: slotLocal, n: 1, text: text})
	if len(c.pend) >= 256 {
		return s.flush() == nil
	}
	return true
}

func (s *session) protocolError(err error) bool {
	var pe *resp.ProtocolError
	if !errors.As(err, &pe) {
		s.lastWord(textInternal, closeInternalError)
		return false
	}
	text := pe.AppendReply(nil)
	if !pe.Fatal {
		return s.refuse(s.server.commands.Other, text)
	}
	reason := closeProtocol
	if strings.Contains(pe.Text, "HTTP") {
		reason = closeHTTP
	}
	s.lastWord(text, reason)
	return false
}

// dispatchBig judges a command that is too big to be held, by its beginning in head, and begins to pass it on or to drop it.
// stream does the rest. It returns false if the session takes no more from its client.
func (s *session) dispatchBig(head []byte) bool {
	c := &s.client
	if now := s.rules(); now != c.rules && !s.changeRules(now) {
		return false
	}
	name := c.cmds.Name(head)
	cmd, sub, exact := s.server.commands.Lookup(name)
	if len(sub) == 0 {
		sub = c.cmds.Sub(head)
	}
	t := cmd.Traits(sub)
	text := s.refusalOfBig(cmd, t, name, sub, exact)
	c.streamed, c.skipping = cmd, text != nil
	if text != nil {
		return s.refuse(cmd, text)
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
func (s *session) refusalOfBig(cmd *command.Command, t command.Trait, name, sub []byte, exact bool) []byte {
	c := &s.client
	if text := cmd.Refusal(name, sub, exact); text != nil {
		return text
	}
	if c.rules != nil {
		if text := s.ruled(cmd, name, sub); text != nil {
			return text
		}
	}
	if text := cmd.RefusalOfBig(name, sub, c.rules); text != nil {
		return text
	}
	if t&command.Uncounted != 0 && c.tx == txDoomed {
		return textDoomed
	}
	return nil
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
			s.add(nil)
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

// ownUser reports whether dragontls authenticates the session's own connection. It waits until there is one, and returns
// true if none can be opened.
func (s *session) ownUser() bool {
	up, err := s.openOwn()
	s.leaveOwnAlone()
	return err != nil || up.Authenticated()
}
