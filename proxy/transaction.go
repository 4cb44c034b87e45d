package proxy

import (
	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// transaction says whether a MULTI of the session is open. It belongs to the session's reader.
type transaction uint8

const (
	txNone   transaction = iota
	txOpen               // MULTI was passed on, but neither EXEC nor DISCARD since
	txQuits              // it is open, and the backend has queued a QUIT in it
	txDoomed             // it is open, but a command in it was refused or the rules have changed: EXEC must not run it
)

// txEvent is an event that may change a transaction.
type txEvent uint8

const (
	txBegins     txEvent = iota // MULTI is passed on
	txEnds                      // EXEC or DISCARD is passed on, or a RESET has taken effect
	txQueuesQuit                // the backend has queued a QUIT, as Dragonfly does
	txDisturbs                  // a command is refused, or the rules change
)

// after returns the state of t after the event e. A transaction changes only here.
func (t transaction) after(e txEvent) transaction {
	switch {
	case e == txEnds:
		return txNone
	case e == txBegins && t == txNone:
		return txOpen
	case e == txQueuesQuit && t == txOpen:
		return txQuits
	case e == txDisturbs && (t == txOpen || t == txQuits):
		return txDoomed
	}
	return t
}

func (s *session) transact(e txEvent) { s.client.tx = s.client.tx.after(e) }

// discard sends DISCARD in place of the EXEC of a doomed transaction, and waits for its reply. If the backend does not
// permit DISCARD, the transaction is still open and stays doomed. It returns false if the session takes no more from its
// client.
func (s *session) discard() bool {
	s.client.next = nextCommand{} // the note of EXEC; withhold does what it would do
	o, ok := s.await(awaitDiscard, slotExec, resp.AppendCommand(nil, "DISCARD"))
	if o != outcomeRefused {
		s.transact(txEnds)
	}
	return ok
}

// classifyAsking keeps the session on its own connection for ASKING. ASKING tells a node of a Redis cluster that the next
// command may use a hash slot that the node is importing. It is like a WATCH that the next command ends, see classifyAsked.
func (s *session) classifyAsking() {
	s.asking, s.asked = true, s.stickies.Add(1)
	s.client.next.note = &note{kind: noteError}
}

// mayAsk reports whether nothing is open on the own connection except earlier ASKINGs. Otherwise the end of this ASKING,
// with the next command, could not be told from the end of a transaction or of watched keys.
func (s *session) mayAsk() bool {
	return s.client.tx == txNone && (!s.sticky() || s.stickies.Load() == s.asked)
}

// classifyAsked sends the command after an ASKING over the same own connection. The reply to that command ends what ASKING
// began. A command that may leave state makes the session keep its own connection for life instead.
func (s *session) classifyAsked(class command.Class) {
	c := &s.client
	s.wantOwn()
	c.stateful, s.asking = true, false
	if class.LeavesNoState() {
		s.client.next.note = &note{kind: noteAsked, began: s.asked}
	} else {
		s.keepOwn()
		s.database.Store(databaseUnknown) // it may be a script
	}
}

// classifyTransaction classifies MULTI, EXEC, DISCARD, WATCH and UNWATCH. A transaction may ride a lane if all of it is in
// one batch and its commands are quiet. Any other keeps the session on its own connection until it has ended.
func (s *session) classifyTransaction(cmd *command.Command, args int) {
	c := &s.client
	s.asking = false // the note that ends what this command begins, or has begun, ends the ASKING too
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
	default: // WATCH, or a MULTI while something is open already
		s.wantOwn()
		c.stateful = true
		if c.tx != txNone {
			s.keepOwn()
		}
		s.stickies.Add(1)
	}
}

// endsSticky sends a command over the own connection whose reply decides whether everything that is open there has ended.
func (s *session) endsSticky(kind noteKind) {
	s.wantOwn()
	s.client.stateful = true
	s.client.next.note = &note{kind: kind, began: s.stickies.Load()}
}

// breakTransaction sends the batch over the own connection, because the transaction that began in it cannot ride a lane. The
// transaction is sticky from here on.
func (s *session) breakTransaction() {
	c := &s.client
	c.pend[c.whole-1].tx = false
	c.whole = 0
	c.route = routeOwn
	c.stateful = true
	s.stickies.Add(1)
}

// closeTransactions prepares the whole transactions of the batch for the own connection: there the reply to each EXEC gets a
// slot of its own, with a note, since it says whether the transaction has ended.
func (s *session) closeTransactions() {
	c := &s.client
	c.hasTx, c.route = false, routeOwn // even if that connection is lost now: notes cannot ride a lane
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

// endSticky handles the reply to a command that should end what is sticky. good means that everything up to n.began has
// ended. Otherwise the session keeps its own connection for life, unless nothing is open anyway.
func (s *session) endSticky(n *note, good bool) {
	switch {
	case good:
		s.stickyEnded.Store(max(s.stickyEnded.Load(), n.began))
	case s.sticky():
		s.keepOwn()
	}
}

// txPart says which part the command has in a whole transaction, which is one that is in one batch from MULTI to EXEC.
type txPart uint8

const (
	txPartNone txPart = iota
	txPartBegin
	txPartEnd
)
