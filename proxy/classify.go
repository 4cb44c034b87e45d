package proxy

import (
	"strings"

	"dragontls/proxy/command"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// classified is the result of classify.
type classified uint8

const (
	classifiedToQueue  classified = iota // the caller adds the command to the batch
	classifiedAnswered                   // the command was answered by an error, because replies were lost
	classifiedNoMore                     // the session takes no more from its client
)

// classify decides over which connection a command goes, before it is added to the batch, and notes that in the batch. It
// makes room in the batch first, so that the slot and the bytes of a command are submitted together. hot
func (s *session) classify(cmd *command.Command, exact bool, sub, frame []byte, args int) classified {
	c := &s.client
	c.next = nextCommand{}
	if !c.recovering && (len(c.out.Bytes)+len(frame) > netio.ChunkSize || c.out.Replies >= maxBatch) && s.flush() != nil {
		return classifiedNoMore
	}
	class := command.Unknown
	if exact {
		class = s.server.commands.Classify(cmd, sub, frame, args)
	}
	if len(frame) > netio.ChunkSize && (class == command.Quiet || class == command.Unbounded) {
		class = command.Own
	}
	if c.recovering {
		if !s.answerLost(cmd, !class.LeavesNoState()) {
			return classifiedNoMore
		}
		return classifiedAnswered
	}
	c.out.Resendable = cmd.OnlyReads && c.out.Replies == 0
	c.changes = c.changes || !cmd.OnlyReads
	if s.asking && class != command.State && class != command.Sticky {
		s.classifyAsked(class)
		return classifiedToQueue
	}
	switch class {
	case command.Quiet:
		c.route = max(c.route, routeLane)
	case command.Unbounded:
		c.route = max(c.route, routeUnbounded)
	case command.Own:
		s.wantOwn()
		if s.asksForName(cmd, sub, args) {
			c.next.note = &note{kind: noteGetName}
		}
	default:
		s.classifyStateful(cmd, class, frame, args)
	}
	return classifiedToQueue
}

// wantOwn decides that the batch goes over the own connection.
func (s *session) wantOwn() {
	if s.client.whole > 0 {
		s.breakTransaction()
	}
	s.client.route = routeOwn
}

// classifyStateful classifies a command that changes the state of its connection, or may do so.
func (s *session) classifyStateful(cmd *command.Command, class command.Class, frame []byte, args int) {
	c := &s.client
	switch {
	case class == command.State && (cmd.Name == "RESET" || cmd.Name == "QUIT" && args == 1):
		return // special calls reset or quit, which decide
	case s.keepsOwn():
		s.wantOwn()
		c.next.note = noteOfOwner(cmd, frame)
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
