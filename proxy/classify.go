package proxy

import (
	"strings"

	"dragontls/proxy/command"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// classified is what came of looking at a command.
type classified uint8

const (
	classifiedToQueue  classified = iota // it is to be queued
	classifiedAnswered                   // it was answered
	classifiedNoMore                     // the session takes no more
)

// classify decides which way a command has to go, before it is queued. It makes room in the batch, so that the slot and
// the bytes of a command are submitted together. hot
func (s *session) classify(cmd *command.Command, exact bool, sub, frame []byte, args int) classified {
	c := &s.client
	c.next = nextCommand{}
	if !c.recovering && (len(c.out)+len(frame) > netio.ChunkSize || c.replies >= maxBatch) && s.flush() != nil {
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
	c.resendable = cmd.OnlyReads && c.replies == 0
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
	default:
		s.classifyStateful(cmd, class, frame, args)
	}
	return classifiedToQueue
}

// wantOwn sends the batch over the own connection.
func (s *session) wantOwn() {
	if s.client.whole > 0 {
		s.breakTransaction()
	}
	s.client.route = routeOwn
}

func (s *session) classifyStateful(cmd *command.Command, class command.Class, frame []byte, args int) {
	c := &s.client
	switch {
	case class == command.State && (cmd.Name == "RESET" || cmd.Name == "QUIT" && args == 1):
		return // reset and quit see to it
	case s.keepsOwn():
		s.wantOwn()
		return
	case class == command.Sticky:
		s.classifyTransaction(cmd, args)
		return
	}
	s.wantOwn()
	c.stateful, s.asking = true, false
	switch {
	case cmd.Name == "ASKING" && s.mayAsk():
		s.classifyAsking()
	case class == command.Life:
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

// classifyBig is classify for a command that is too big to be held: its name and subcommand are known, no more.
func (s *session) classifyBig(cmd *command.Command, exact bool, sub []byte) classified {
	c := &s.client
	c.next = nextCommand{}
	class := command.Life
	if exact && cmd.Class(sub).LeavesNoState() {
		class = command.Own
	}
	if !c.recovering && c.replies > 0 && s.flush() != nil {
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
	}
	return classifiedToQueue
}
