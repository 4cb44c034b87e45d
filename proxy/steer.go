package proxy

import (
	"strings"

	"dragontls/proxy/command"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// steering is what came of looking at a command.
type steering uint8

const (
	steerOn     steering = iota // it is to be queued
	steerDone                   // it was answered
	steerNoMore                 // the session takes no more
)

// steer decides which way a command has to go, before it is queued. It makes room in the batch, so that the slot and
// the bytes of a command are submitted together. hot
func (s *session) steer(cmd *command.Command, exact bool, sub, frame []byte, args int) steering {
	c := &s.client
	c.next = nextCommand{}
	if !c.recovering && (len(c.out)+len(frame) > netio.ChunkSize || c.replies >= maxBatch) && s.flush() != nil {
		return steerNoMore
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
			return steerNoMore
		}
		return steerDone
	}
	c.rereads = cmd.OnlyReads && c.replies == 0
	if s.asking && class != command.State && class != command.Sticky {
		s.steerAsked(class)
		return steerOn
	}
	switch class {
	case command.Quiet:
		c.route = max(c.route, routeLane)
	case command.Unbounded:
		c.route = max(c.route, routeUnbounded)
	case command.Own:
		s.wantOwn()
	default:
		s.steerStateful(cmd, class, frame, args)
	}
	return steerOn
}

// wantOwn sends the batch over the own connection.
func (s *session) wantOwn() {
	if s.client.whole > 0 {
		s.breakTransaction()
	}
	s.client.route = routeOwn
}

func (s *session) steerStateful(cmd *command.Command, class command.Class, frame []byte, args int) {
	c := &s.client
	if s.pinned.Load() {
		s.wantOwn()
		return
	}
	switch {
	case class == command.Sticky:
		s.steerSticky(cmd, args)
		return
	case class == command.State && (cmd.Name == "RESET" || cmd.Name == "QUIT" && args == 1):
		return // reset and quit see to it
	}
	s.wantOwn()
	c.stateful, s.asking = true, false
	switch {
	case cmd.Name == "ASKING" && s.mayAsk():
		s.steerAsking()
	case class == command.Life:
		s.pinned.Store(true)
	case s.sticky():
		s.pinned.Store(true)
	case class == command.Script && strings.HasPrefix(cmd.Name, "EVALSHA"):
		c.next.note = &note{kind: noteScript}
	case class == command.Script:
		s.pinned.Store(true)
	case class == command.Unknown:
		c.next.note = &note{kind: noteUnknown}
	default:
		if c.next.note = noteOfState(cmd.Name, resp.SplitArgs(frame, nil)); c.next.note == nil {
			c.next.note = &note{kind: noteUnknown}
		}
	}
}

// steerBig is steer for a command that is too big to be held: its name and subcommand are known, no more.
func (s *session) steerBig(cmd *command.Command, exact bool, sub []byte) steering {
	c := &s.client
	c.next = nextCommand{}
	class := command.Life
	if exact && cmd.Class(sub).LeavesNoState() {
		class = command.Own
	}
	if !c.recovering && c.replies > 0 && s.flush() != nil {
		return steerNoMore
	}
	if c.recovering {
		c.streamed, c.skipping = cmd, true
		if !s.answerLost(cmd, class == command.Life) {
			return steerNoMore
		}
		return steerDone
	}
	s.wantOwn()
	switch {
	case s.asking:
		s.steerAsked(class)
	case class == command.Life:
		c.stateful = true
		s.pinned.Store(true)
	}
	return steerOn
}
