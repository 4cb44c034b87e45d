package proxy

import (
	"errors"
	"strings"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// classifyStateful classifies a command that changes the state of its connection, or may do so.
func (s *session) classifyStateful(cmd *command.Command, class command.Class, frame []byte, args int) {
	c := &s.client
	switch {
	case class == command.State && (cmd.Name == "RESET" || cmd.Name == "QUIT" && args == 1):
		return // special calls reset or quit, which decide
	case s.keepsOwn():
		s.wantOwn()
		c.next.note = s.noteOfOwner(cmd, frame)
		s.classifyMove(cmd, class, frame)
		return
	case class == command.Sticky:
		s.classifyTransaction(cmd, args)
		return
	}
	s.wantOwn()
	s.classifyMove(cmd, class, frame)
	c.stateful, s.asking = true, false
	switch {
	case cmd.Name == "ASKING" && s.mayAsk():
		s.classifyAsking()
	case class == command.Life, cmd.Name == "HELLO" && helloAuthenticates(frame):
		s.keepOwn()
	case s.sticky():
		s.keepOwn()
	case class == command.Script && strings.HasPrefix(cmd.Name, "EVALSHA"):
		c.next.note = &note{kind: noteScript}
	case class == command.Script:
		s.keepOwn()
	case class == command.Unknown:
		c.next.note = &note{kind: noteUnknown}
	default:
		if c.next.note = noteOfState(cmd.Name, resp.SplitArgs(frame, nil)); c.next.note == nil {
			c.next.note = &note{kind: noteUnknown}
		}
	}
}

// wantOwn decides that the batch goes over the own connection.
func (s *session) wantOwn() {
	if s.client.whole > 0 {
		s.breakTransaction()
	}
	s.client.route = routeOwn
}

// special adds to the batch a command whose traits change how the session goes on. For RESET, QUIT and the EXEC of a doomed
// transaction it waits for the reply. It returns false if the session takes no more from its client.
func (s *session) special(cmd *command.Command, t command.Trait, frame []byte, args int) bool {
	c := &s.client
	switch {
	case t&command.Uncounted != 0:
		if c.tx == txDoomed {
			return s.refuse(cmd, textDoomed, byTransaction)
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

// countLocal counts a command that is not passed on.
func (s *session) countLocal(cmd *command.Command, as commandFate) {
	s.stripe.local[cmd.ID].Add(1)
	s.client.commands.Add(1)
	if s.client.settings.audit >= AuditCommands {
		s.auditCommand(cmd, as)
	}
}

// refuse answers a command with text, in its place among the replies. Inside MULTI that dooms the transaction. If replies
// cannot be counted, the session ends with this reply. It returns false if the session takes no more from its client.
func (s *session) refuse(cmd *command.Command, text []byte, by deniedBy) bool {
	c := &s.client
	s.noteDenied(cmd, by)
	s.countLocal(cmd, commandRefused)
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
		return s.refuse(s.client.settings.commands.Other, text, byForm)
	}
	reason := closeProtocol
	if strings.Contains(pe.Text, "HTTP") {
		reason = closeHTTP
	}
	s.lastWord(text, reason)
	return false
}
