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
	if s.client.tx > 0 {
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
		s.note = &note{kind: noteScript}
	case class == command.Script:
		s.pinned.Store(true)
	case class == command.Unknown:
		s.note = &note{kind: noteUnknown}
	default:
		if s.note = noteOfState(cmd.Name, resp.SplitArgs(frame, nil)); s.note == nil {
			s.note = &note{kind: noteUnknown}
		}
	}
}

// steerAsking keeps the session on its own connection for ASKING, which says that the next command may meet a slot that a
// node of a Redis cluster is importing. It is like a WATCH that the next command ends: see steerAsked.
func (s *session) steerAsking() {
	s.asking, s.asked = true, s.stickies.Add(1)
	s.note = &note{kind: noteError}
}

// mayAsk reports whether nothing but earlier ASKINGs is open on the own connection. What the next command ends could not be
// told from a transaction or watched keys otherwise.
func (s *session) mayAsk() bool {
	return !s.client.multi && (!s.sticky() || s.stickies.Load() == s.asked)
}

// steerAsked sends the command after an ASKING over the connection that was asked. Its reply ends what ASKING began,
// unless the command keeps the connection for good.
func (s *session) steerAsked(class command.Class) {
	c := &s.client
	s.wantOwn()
	c.stateful, s.asking = true, false
	if class.LeavesNoState() {
		s.note = &note{kind: noteAsked, began: s.asked}
	} else {
		s.pinned.Store(true)
	}
}

// steerSticky follows transactions: a whole one of quiet commands in one batch may ride a lane, every other is sticky.
func (s *session) steerSticky(cmd *command.Command, args int) {
	c := &s.client
	s.asking = false // whatever ends what this command begins, or has begun, ends the ASKING too
	switch {
	case args != 1 && cmd.Name != "WATCH":
		s.wantOwn()
		c.stateful = true
		if s.sticky() {
			s.pinned.Store(true)
		} else {
			s.note = &note{kind: noteUnknown}
		}
	case cmd.Name == "MULTI" && !c.multi && !s.sticky():
		c.begins = true
		c.route = max(c.route, routeLane)
	case cmd.Name == "EXEC" && c.tx > 0:
		c.ends = true
	case cmd.Name == "EXEC":
		s.endsSticky(noteExec)
	case cmd.Name == "DISCARD":
		s.endsSticky(noteDiscard)
	case cmd.Name == "UNWATCH" && !c.multi:
		s.endsSticky(noteUnwatch)
	case cmd.Name == "UNWATCH":
		s.wantOwn()
	default: // WATCH, or MULTI behind it
		s.wantOwn()
		c.stateful = true
		if c.multi {
			s.pinned.Store(true)
		}
		s.stickies.Add(1)
	}
}

func (s *session) endsSticky(kind noteKind) {
	s.wantOwn()
	s.client.stateful = true
	s.note = &note{kind: kind, began: s.stickies.Load()}
}

// breakTransaction: what began as a whole transaction is none that a lane may carry.
func (s *session) breakTransaction() {
	c := &s.client
	c.pend[c.tx-1].tx = false
	c.tx = 0
	c.route = routeOwn
	c.stateful = true
	s.stickies.Add(1)
}

// steerBig is steer for a command that is too big to be held: its name and subcommand are known, no more.
func (s *session) steerBig(cmd *command.Command, exact bool, sub []byte) steering {
	c := &s.client
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

// closeTransactions prepares whole transactions for the own connection, where the reply to EXEC says whether the
// transaction has ended.
func (s *session) closeTransactions() {
	c := &s.client
	if !c.hasTx {
		return
	}
	c.hasTx, c.route = false, routeOwn // whatever happens to that connection: a lane knows no notes
	pend := make([]slot, 0, len(c.pend)+4)
	for _, p := range c.pend {
		if !p.tx {
			pend = append(pend, p)
			continue
		}
		exec := slot{kind: slotNoted, n: 1, note: &note{kind: noteWholeExec}}
		p.n, p.tx = p.n-1, false
		pend = append(pend, p, exec)
	}
	c.pend = pend
}
