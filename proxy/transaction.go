package proxy

import (
	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// transaction is what a session's reader knows of MULTI.
type transaction uint8

const (
	txNone   transaction = iota
	txOpen               // MULTI was passed on, and neither EXEC nor DISCARD since
	txDoomed             // and a command in it was refused, or the rules have changed since: EXEC must not run it
)

// txEvent is what may change a transaction.
type txEvent uint8

const (
	txBegins   txEvent = iota // MULTI is passed on
	txEnds                    // EXEC or DISCARD is passed on, or a RESET has taken effect
	txDisturbs                // a command is refused, or the rules change
)

// after is the only place where a transaction changes.
func (t transaction) after(e txEvent) transaction {
	switch {
	case e == txEnds:
		return txNone
	case e == txBegins && t == txNone:
		return txOpen
	case e == txDisturbs && t == txOpen:
		return txDoomed
	}
	return t
}

func (s *session) transact(e txEvent) { s.client.tx = s.client.tx.after(e) }

// discard goes in the place of a doomed EXEC. Where the backend does not permit it, the transaction is still there
// and stays doomed.
func (s *session) discard() bool {
	refused, ok := s.await(awaitDiscard, slotExec, resp.AppendCommand(nil, "DISCARD"))
	if !refused {
		s.transact(txEnds)
	}
	return ok
}

// classifyAsking keeps the session on its own connection for ASKING, which says that the next command may meet a slot that a
// node of a Redis cluster is importing. It is like a WATCH that the next command ends: see classifyAsked.
func (s *session) classifyAsking() {
	s.asking, s.asked = true, s.stickies.Add(1)
	s.client.next.note = &note{kind: noteError}
}

// mayAsk reports whether nothing but earlier ASKINGs is open on the own connection. What the next command ends could not be
// told from a transaction or watched keys otherwise.
func (s *session) mayAsk() bool {
	return s.client.tx == txNone && (!s.sticky() || s.stickies.Load() == s.asked)
}

// classifyAsked sends the command after an ASKING over the connection that was asked. Its reply ends what ASKING began,
// unless the command keeps the connection for good.
func (s *session) classifyAsked(class command.Class) {
	c := &s.client
	s.wantOwn()
	c.stateful, s.asking = true, false
	if class.LeavesNoState() {
		s.client.next.note = &note{kind: noteAsked, began: s.asked}
	} else {
		s.keepOwn()
	}
}

// classifyTransaction follows transactions: a whole one of quiet commands in one batch may ride a lane, every other is sticky.
func (s *session) classifyTransaction(cmd *command.Command, args int) {
	c := &s.client
	s.asking = false // whatever ends what this command begins, or has begun, ends the ASKING too
	switch {
	case args != 1 && cmd.Name != "WATCH":
		s.wantOwn()
		c.stateful = true
		if s.sticky() {
			s.keepOwn()
		} else {
			c.next.note = &note{kind: noteUnknown}
		}
	case cmd.Name == "MULTI" && c.tx == txNone && !s.sticky():
		c.next.part = txPartBegin
		c.route = max(c.route, routeLane)
	case cmd.Name == "EXEC" && c.whole > 0:
		c.next.part = txPartEnd
	case cmd.Name == "EXEC":
		s.endsSticky(noteExec)
	case cmd.Name == "DISCARD":
		s.endsSticky(noteDiscard)
	case cmd.Name == "UNWATCH" && c.tx == txNone:
		s.endsSticky(noteUnwatch)
	case cmd.Name == "UNWATCH":
		s.wantOwn()
	default: // WATCH, or MULTI behind it
		s.wantOwn()
		c.stateful = true
		if c.tx != txNone {
			s.keepOwn()
		}
		s.stickies.Add(1)
	}
}

func (s *session) endsSticky(kind noteKind) {
	s.wantOwn()
	s.client.stateful = true
	s.client.next.note = &note{kind: kind, began: s.stickies.Load()}
}

// breakTransaction: what began as a whole transaction is none that a lane may carry.
func (s *session) breakTransaction() {
	c := &s.client
	c.pend[c.whole-1].tx = false
	c.whole = 0
	c.route = routeOwn
	c.stateful = true
	s.stickies.Add(1)
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

// sticky reports whether a transaction, watched keys or an ASKING may be open on the own connection.
func (s *session) sticky() bool { return s.stickies.Load() != s.stickyEnded.Load() }

func (s *session) endSticky(n *note, good bool) {
	switch {
	case good:
		s.stickyEnded.Store(max(s.stickyEnded.Load(), n.began))
	case s.sticky():
		s.keepOwn()
	}
}
