package proxy

import (
	"dragontls/proxy/command"
	"dragontls/proxy/lane"
	"dragontls/proxy/netio"
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
	cmd, rest, exact := s.client.settings.commands.Lookup(name)
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
		return s.refuse(cmd, text, formOr(byDenyCommands, text))
	}
	if c.rules != nil {
		if text := s.ruled(cmd, name, sub); text != nil {
			return s.refuse(cmd, text, formOr(byUsersFile, text))
		}
	}
	t := cmd.Traits(sub)
	if t&(command.Inspected|command.MayBlock) != 0 {
		words := resp.SplitArgs(frame, nil)
		kept, done := s.checkPassword(cmd, exact, words)
		if done != classifiedToQueue {
			return done == classifiedAnswered
		}
		if len(kept) < len(words) {
			words, args, frame = kept, len(kept), resp.AppendWords(nil, kept)
		}
		if text := cmd.Inspect(words, rest, !s.clientAuth() && s.ownUser()); text != nil {
			return s.refuse(cmd, text, formOr(byAuthentication, text))
		}
		if t&command.MayBlock != 0 && command.MentionsBlock(words) {
			t |= command.Blocking
		}
	}
	switch s.classify(cmd, exact, sub, frame, args) {
	case classifiedAnswered:
		return true
	case classifiedNoMore:
		return false
	}
	if t == 0 || t == command.Scripting {
		c.scripting = c.scripting || t != 0
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
		class = s.client.settings.commands.Classify(cmd, sub, frame, args)
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
		if cmd.Name == "CLIENT" && s.asksForName(sub, args) {
			c.next.note = &note{kind: noteGetName}
		}
	default:
		s.classifyStateful(cmd, class, frame, args)
	}
	return classifiedToQueue
}

// queueFrame adds a command's slot and its canonical frame to the batch. blocks means that the command may wait for other
// clients. The caller must have made room for the frame, as classify does. An inline command may still be longer than the
// chunk in its canonical form: the bytes move out of the chunk then. hot
func (s *session) queueFrame(frame []byte, kind slotKind, blocks bool) {
	c := &s.client
	next := c.next
	c.next = nextCommand{}
	last := len(c.pend) - 1
	proves := !s.proven.Load()
	if len(frame) > 0 {
		c.frames++
	}
	switch {
	case s.uncounting():
	case kind != slotReplies:
		c.pend = append(c.pend, slot{kind: kind, note: next.note, blocking: blocks, n: 1})
	case next.note != nil:
		c.pend = append(c.pend, slot{kind: slotNoted, note: next.note, blocking: blocks, n: 1})
	case next.part == txPartBegin:
		c.pend = append(c.pend, slot{tx: true, proves: proves, n: 1})
		c.whole = len(c.pend)
		c.out.Replies++
	case c.whole > 0:
		c.pend[c.whole-1].n++
		c.out.Replies++
		if next.part == txPartEnd {
			c.hasTx, c.whole = true, 0
		}
	case last >= 0 && c.pend[last].kind == slotReplies && c.pend[last].blocking == blocks && !c.pend[last].tx && c.pend[last].proves == proves:
		c.pend[last].n++
		c.out.Replies++
	default:
		c.pend = append(c.pend, slot{blocking: blocks, proves: proves, n: 1})
		c.out.Replies++
	}
	if c.out.Chunk == nil {
		c.out.Chunk = s.account().Chunk()
		c.out.Bytes = c.out.Chunk[:0]
	}
	c.out.Bytes = append(c.out.Bytes, frame...)
}

// count counts a command that is passed on. It adds up runs of the same command, which flush hands on to tallied. hot
func (s *session) count(cmd *command.Command) {
	c := &s.client
	if c.last != cmd {
		s.handOnCount()
		c.last = cmd
	}
	c.lastN++
	if s.client.settings.audit >= AuditCommands {
		s.auditCommand(cmd, commandPassed)
	}
}

func (s *session) handOnCount() {
	c := &s.client
	if c.lastN == 0 {
		return
	}
	s.client.tallied = append(s.client.tallied, tally{c.last.ID, c.lastN})
	c.lastN = 0
}

// flush submits the batch, if there is one: its slots enter the reply order before its bytes are written. It passes the batch
// on over the connection that wantedRoute chooses, and waits for that connection and for room. If the batch cannot be sent,
// failBatch answers it. The reader calls flush before every read that may wait. After an error the session takes no more
// commands.
func (s *session) flush() error {
	c := &s.client
	if c.flushErr != nil {
		return c.flushErr
	}
	s.handOnCount()
	if len(c.pend) == 0 && len(c.out.Bytes) == 0 {
		return nil
	}
	s.countBatch()
	if c.whole > 0 {
		s.breakTransaction()
	}
	if c.route == routeNone {
		s.pushLocals()
		return nil
	}
	for {
		switch want := s.wantedRoute(); {
		case c.flushErr != nil:
			return c.flushErr
		case s.ended():
			c.flushErr = errEnded
			return errEnded
		case want != s.at.on && !s.settledForRoute():
			return errEnded
		case want == routeOwn:
			if s.flushOwn() {
				return c.flushErr
			}
		case s.flushLane(want):
			return c.flushErr
		}
	}
}

// wantedRoute decides where the batch goes: over the kind of connection that its commands need, or over a stronger one that
// the state of the session requires.
func (s *session) wantedRoute() routeKind {
	if s.keepsOwn() {
		return routeOwn
	}
	now := s.server.now()
	c, at := &s.client, &s.at
	switch c.route {
	case routeOwn:
		at.ownUntil = now.Add(s.server.c.stayInterval)
		return routeOwn
	case routeUnbounded:
		at.unboundedUntil = now.Add(s.server.c.stayInterval)
	}
	s.queue.mu.Lock()
	owed := s.queue.owed > 0 // before the rest: what a reply changes in the session is stored before the reply stops being owed
	s.queue.mu.Unlock()
	if !owed {
		at.lane = nil
	}
	if s.keepsOwn() || !s.isProven(now) || s.sticky() || now < s.ownUntil.Load() || at.barredUntil > now {
		return routeOwn
	}
	if at.on == routeOwn && (owed || now < at.ownUntil) && s.hasOwn() {
		return routeOwn
	}
	if now < at.unboundedUntil || at.on == routeUnbounded && owed {
		return routeUnbounded
	}
	return routeLane
}

// flushLane submits the batch to a lane. It returns false if the route must be decided again. If it returns true, the batch
// was submitted or answered by failBatch, or the session has ended.
func (s *session) flushLane(want routeKind) bool {
	c := &s.client
	l, err := s.chooseLane(want)
	if err != nil {
		return s.withoutLane(err)
	}
	if c.hasTx && !l.Transactions() {
		c.route = routeOwn
		return false
	}
	s.mustFitLane()
	result := l.Submit(&s.seat, &c.out, s.server.now())
	if result == submitWait {
		result = s.awaitRoom(l)
	}
	if result != submitted {
		return s.notSubmitted(result)
	}
	s.goOver(want, l)
	s.noteServed()
	s.dropBatch()
	return true
}

// mustFitLane panics if the batch's slots and commands do not agree. That ends this session before its batch can put the
// replies of others out of order. hot
func (s *session) mustFitLane() {
	c, n := &s.client, 0
	for i := range c.pend {
		switch p := &c.pend[i]; {
		case p.kind == slotReplies:
			n += p.n
		case !p.kind.local():
			panic("a batch for the own connection went to a lane")
		}
	}
	if n != c.out.Replies || n != c.frames {
		panic("a batch has not as many commands as slots")
	}
}

// chooseLane returns the lane on which replies are owed or, if none are, the lane that Set.Choose picks for the
// session's present state. A batch that only reads does not wait on a lane that is held: there are other lanes for those then.
// chooseLane waits for a lane at most unavailableTimeout, not counting the wait for a token.
func (s *session) chooseLane(want routeKind) (*lane.Lane, error) {
	at := &s.at
	if at.lane != nil {
		return at.lane, nil
	}
	var l *lane.Lane
	if want == routeLane && s.server.now() < s.seat.SlowUntil() {
		l = s.laneApart()
	}
	if l == nil {
		s.findSet(setFor{gen: s.gen.Load(), unbounded: want == routeUnbounded})
		l = at.set.Choose(s.begun)
	}
	if l != nil && l.Held() && !s.client.changes && s.server.backend.HasSpare() {
		s.findSet(setFor{gen: s.gen.Load(), unbounded: at.setFor.unbounded, reads: true})
		l = at.set.Choose(s.begun)
	}
	if l != nil {
		return l, nil
	}
	over := make(chan struct{})
	defer close(over)
	go s.watchUntil(over) // ends with the wait; nobody waits for it
	return at.set.Await(s.begun, s.done)
}

// countBatch counts what the batch holds beyond its chunk. The session's reader calls it before it may wait while it has a
// batch, and when the batch or a part of it is gone. hot
func (s *session) countBatch() {
	c := &s.client
	n := slotsCost(cap(c.pend))
	for i := range c.pend {
		if c.pend[i].note != nil {
			n += noteCost
		}
	}
	if k := cap(c.tallied); k > fewSlots {
		n += int64(k) * tallyCost
	}
	if extra := cap(c.out.Bytes) - netio.ChunkSize; extra > 0 {
		n += int64(extra)
	}
	if n != c.counted {
		s.account().Hold(n - c.counted)
		c.counted = n
	}
}

// dropBatch drops the batch after it was passed on or answered.
func (s *session) dropBatch() {
	c := &s.client
	if c.out.Chunk != nil {
		s.account().FreeChunk(c.out.Chunk)
		c.out.Bytes, c.out.Chunk = nil, nil
	}
	clear(c.pend)
	c.pend = c.pend[:0]
	if cap(c.pend) > fewSlots {
		c.pend = nil
	}
	s.countBatch()
	c.frames = 0
	c.route, c.out.Replies, c.whole, c.hasTx, c.stateful, c.scripting, c.changes = routeNone, 0, 0, false, false, false, false
}
