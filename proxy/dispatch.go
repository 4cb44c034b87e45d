package proxy

import (
	"errors"
	"strings"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// dispatch judges a command that is held as a whole, and queues it or its refusal. hot
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
		t &^= command.OpensMulti | command.EndsMulti | command.Resets | command.Quits // "EXEC " with its blank is not known to the backend
	}
	return s.special(cmd, t, frame, args)
}

// special queues a command that changes how the session goes on.
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
		if !s.submitBefore() {
			return false
		}
		s.count(cmd)
		return s.reset(frame)
	case t&command.Quits != 0 && args == 1:
		if !s.submitBefore() {
			return false
		}
		s.count(cmd)
		return s.quit(frame)
	}
	s.count(cmd)
	switch {
	case args != 1:
	case t&command.OpensMulti != 0:
		s.transact(txBegins)
	case t&command.EndsMulti != 0:
		if c.tx == txDoomed && cmd.Name == "EXEC" {
			return s.discard()
		}
		s.transact(txEnds)
	}
	s.queueFrame(frame, slotReplies, t&command.Blocking != 0)
	return true
}

// submitBefore submits what came before a RESET or QUIT, which may have to go another way. It returns false if the session has
// ended.
func (s *session) submitBefore() bool { return s.ownsFromBirth() || s.flush() == nil }

// refuse answers a command in its place. Inside MULTI that dooms the transaction; where replies cannot be counted
// the session ends with it.
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

// dispatchBig begins to pass on, or to drop, a command that is too big to be held.
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
	c.streamed = nil // what waits to be sent is whole
	how := s.classifyBig(cmd, exact, sub)
	if c.streamed = cmd; how != classifiedToQueue {
		return how == classifiedAnswered
	}
	if t&command.MayBlock != 0 {
		t |= command.Blocking
	}
	// Only the first bytes are queued here; a special command of this size is an error of arity to the backend,
	// but for subscriptions.
	return s.special(cmd, t&^(command.Resets|command.Quits|command.OpensMulti|command.EndsMulti), nil, 2)
}

// refusalOfBig returns the refusal of a command that is too big to be held, and nil where it may pass. name and sub are nil
// where they are not complete within the part that is held.
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

// stream passes on what is there of a big command. false: more has to be read first.
func (s *session) stream() bool {
	c := &s.client
	in := c.buf[c.r:c.w]
	var n int
	var done bool
	var err error
	if c.skipping {
		n, done, err = c.cmds.Skip(in)
	} else {
		// Re-encoded headers are never longer than what came, but for the first of a frame.
		if cap(c.out)-len(c.out) < len(in)+64 {
			if s.flush() != nil {
				return false
			}
			if c.skipping { // the backend was lost
				return true
			}
			s.add(nil)
		}
		if room := cap(c.out) - 64; len(in) > room {
			in = in[:room]
		}
		c.out, n, done, err = c.cmds.Stream(c.out, in)
		c.route = routeOwn // in the middle of a command a session stays where it is
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

// abandon ends the session in the middle of a command that the backend has a part of: no reply to it will come.
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

// ownUser says that dragontls authenticates this session's connection. It waits until there is one.
func (s *session) ownUser() bool {
	up, err := s.openOwn()
	s.leaveOwnAlone()
	return err != nil || up.authenticated()
}
