package proxy

import (
	"dragontls/proxy/clock"
	"dragontls/proxy/lane"
	"dragontls/proxy/netio"
)

// admitLocked pushes all slots, stamped with now, or none. toLane says whether a lane will answer them or the own connection,
// where replies that the client does not take wait in the backend, not here.
// If they are pushed, a local reply is due and the turn is free, it returns the turn, which the caller must release. The
// caller must hold queue.mu. hot
func (s *session) admitLocked(slots []slot, now clock.Instant, toLane bool) (submission, writeTurn) {
	q := &s.queue
	switch {
	case q.closed:
		return submitNever, noTurn
	case toLane && q.owed > 0 && (!q.onLane || q.out.resend != nil): // the own connection owes the reply, or soon will: see WantResend
		return submitOwn, noTurn
	case toLane && q.out.tooMuchUnsent():
		return submitLater, noTurn
	}
	q.onLane = toLane
	q.pushLocked(slots, now)
	return submitted, s.turnForLocalsLocked()
}

// Admit enters the batch into the reply order and into the ring of a lane, in the same order, see lane.Rider. hot
func (s *session) Admit(to lane.Entry, now clock.Instant) (submission, lane.Turn) {
	c := &s.client
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	result, t := s.admitLocked(c.pend, now, true)
	if result != submitted {
		return result, nil
	}
	s.tally(s.stripe.lane)
	for i := range c.pend {
		if p := &c.pend[i]; !p.kind.local() {
			to.Owe(p.n, p.tx)
		}
	}
	if !t.held() {
		return result, nil
	}
	return result, t
}

// pushLocked appends slots, stamped with now, to the queue. Only the session's reader calls it. hot
func (q *replyOrder) pushLocked(slots []slot, now clock.Instant) {
	before := q.slots.Cap()
	for i := range slots {
		l := &slots[i]
		l.sent = now
		q.slots.Push(*l, 2)
		if l.note != nil {
			q.account.Hold(noteCost)
		}
		if l.kind.local() || l.kind == slotUncounted {
			continue
		}
		q.owed += l.n
		if l.blocking {
			q.blocked++
		}
	}
	q.full = q.slots.Len() >= maxSlots
	if q.slots.Cap() != before {
		q.grownLocked(before)
	}
}

// turnForLocalsLocked takes and returns the turn if it is free and the next thing due to the client is a local reply. The
// caller must hold q.mu, unlock it, and then release the turn, which writes the reply.
func (s *session) turnForLocalsLocked() writeTurn {
	if s.queue.turn || !s.queue.localFirstLocked() {
		return writeTurn{}
	}
	s.queue.turn = true
	return writeTurn{s}
}

// localFirstLocked reports whether the next thing due to the client is a local reply. It first pops the mark slotUncounted
// if that is next, and stops counting replies.
func (q *replyOrder) localFirstLocked() bool {
	if q.run.n > 0 && !q.uncounted() {
		return false
	}
	for q.slots.Len() > 0 && q.slots.At(0).kind == slotUncounted {
		q.popLocked()
		q.counting.Store(uncounted)
		q.run = slot{}
	}
	return q.slots.Len() > 0 && q.slots.At(0).kind.local()
}

// Receive puts b, which a lane has brought, into the outbox, see lane.Rider. The run that b belongs to is one slot of the
// queue. slow is true if more than the budget is unsent: the session then uses its own connection for good. hot
func (s *session) Receive(b []byte, n int, half bool, now clock.Instant) (slow bool, t lane.Turn) {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.run.n == 0 && !s.nextLaneRunLocked() {
		return false, nil
	}
	q.out.append(s.account(), b)
	if q.half && !half {
		q.notifyLocked()
	}
	q.half = half
	q.run.n -= n
	q.owed -= n
	if q.owed == 0 || q.owed < q.out.below { // the session's reader may wait for this
		q.out.below = 0
		q.notifyLocked()
	}
	if n > 0 {
		q.answered = true
		s.lastActive.Store(now)
		if q.run.n == 0 {
			s.stripe.durations.observe(now.Sub(q.run.sent), 1)
		}
	}
	if !q.turn {
		q.turn, t = true, writeTurn{s}
		q.out.writers++
	}
	if slow = q.out.unsent > netio.MinBudget && q.out.unsent > q.out.budget(); slow {
		s.ownUntil.Store(forGood)
	}
	return slow, t
}

// nextLaneRunLocked makes run the slot whose replies come now. It first puts the local replies before it into the outbox. It
// returns false if the queue has no such slot.
func (s *session) nextLaneRunLocked() bool {
	q := &s.queue
	for q.localFirstLocked() {
		l := q.popLocked()
		for range l.n {
			q.out.append(s.account(), l.text)
		}
	}
	if q.slots.Len() == 0 {
		return false
	}
	q.run, q.out.resend = q.popLocked(), nil // the command need not be sent again: here is the reply
	return true
}

func (q *replyOrder) popLocked() slot {
	s := q.slots.Pop()
	if s.note != nil {
		q.account.Hold(-noteCost)
	}
	if q.slots.Len() == 0 && q.slots.Cap() > fewSlots {
		q.dropSlotsLocked() // so that an idle session keeps little memory
	}
	if q.slots.Len() == maxSlots-1 {
		q.notifyLocked()
	}
	return s
}

// append appends a copy of b, in memory that the account from lends. hot
func (o *outbox) append(from *netio.Account, b []byte) {
	o.size += len(b)
	o.unsent += len(b)
	for len(b) > 0 {
		if n := len(o.bufs); n > 0 {
			last := &o.bufs[n-1]
			k := copy(last.room(), b)
			last.n += k
			b = b[k:]
			if len(b) == 0 {
				return
			}
		}
		if len(o.bufs) == 0 && len(b) <= netio.PageSize {
			o.bufs = append(o.bufs, outBuf{page: from.Page()})
		} else {
			o.bufs = append(o.bufs, outBuf{chunk: from.Chunk()})
		}
	}
}

// notifyLocked wakes every goroutine that waits for a change of the queue.
func (q *replyOrder) notifyLocked() {
	q.changed.Broadcast()
	if q.wake != nil {
		q.wake()
	}
}

// settleAndRelease settles and then releases. After an error the session has ended, and the turn is not given up, so that
// nobody writes any more.
func (t writeTurn) settleAndRelease(n, unblocked int) error {
	for t.keptForLocals(n, unblocked) {
		if err := t.writeLocals(); err != nil {
			return err
		}
		n, unblocked = 0, 0
	}
	return nil
}

// keptForLocals settles and gives the turn up, to a writer goroutine if the outbox is not empty. If a local reply is due
// instead, it returns true, and the caller still has the turn.
func (t writeTurn) keptForLocals(n, unblocked int) bool {
	q := &t.s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settleLocked(n, unblocked)
	switch {
	case q.out.size > 0: // a lane has brought more meanwhile
		t.leaveToWriterLocked()
		return false
	case q.localFirstLocked():
		return true
	}
	q.turn = false
	q.notifyLocked()
	return false
}

// drain is the writer goroutine: it writes what is in the outbox and then gives the turn up.
func (t writeTurn) drain() { t.writeOutbox(true) }

// DrainNow does the same for a lane's reader, which must not wait: a writer goroutine writes what would have to wait. hot
func (t writeTurn) DrainNow() {
	if t.writeOutbox(false) {
		go t.drain()
	}
}

// writeOutbox writes what is in the outbox, and gives the turn up. With wait unset it stops where it would have to wait and
// returns true: the caller still has the turn and must start a writer goroutine for the rest. hot
func (t writeTurn) writeOutbox(wait bool) (left bool) {
	s, over := t.s, false
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
			t.drop()
		}
		if !left && !over {
			s.queue.writerEnded()
		}
	}()
	if wait {
		if err := s.client.sock.Flush(); err != nil {
			s.writeFailed(err)
			t.drop()
			return false
		}
	}
	for wrote := 0; ; {
		b, next := t.next(wrote, wait)
		switch next {
		case outEnded:
			return false // without giving up the turn: nobody may write after what was dropped
		case outLater:
			return true
		case outOver:
			over = true
			return false
		case outLocals:
			if t.settleAndRelease(0, 0) != nil {
				t.drop()
			}
			return false
		}
		wrote = b.n
		if t.writeBuf(b, wait) != nil {
			t.drop()
			return false
		}
	}
}

// writeBuf writes b and then frees it, whether or not the write succeeds. hot
func (t writeTurn) writeBuf(b outBuf, wait bool) error {
	defer b.free(t.s.account())
	if wait {
		return t.write(b.bytes())
	}
	return t.writeNow(b.bytes())
}

// nextOut says what a writer has to do next.
type nextOut uint8

const (
	outBytes  nextOut = iota // write a buffer of the outbox
	outLocals                // write local replies
	outLater                 // leave the rest to a writer that may wait
	outOver                  // end: everything is written, and the turn is given up
	outEnded                 // end: the session has ended, and nothing is written any more
)

// next accounts for the wrote bytes that a writer has written, and returns what comes next. wait says whether the writer may
// wait for the client. hot
func (t writeTurn) next(wrote int, wait bool) (outBuf, nextOut) {
	s, q := t.s, &t.s.queue
	later := !wait && s.client.sock.Pending()
	q.mu.Lock()
	defer q.mu.Unlock()
	if wrote > 0 {
		if q.out.unsent > netio.PageSize {
			q.notifyLocked()
		}
		q.out.unsent = max(0, q.out.unsent-wrote)
	}
	if q.closed {
		q.out.clear(s.account())
		return outBuf{}, outEnded
	}
	if later || !wait && q.out.size > netio.MaxWriteNow {
		return outBuf{}, outLater
	}
	if b, ok := q.out.take(); ok {
		return b, outBytes
	}
	if q.localFirstLocked() {
		if wait {
			return outBuf{}, outLocals
		}
		return outBuf{}, outLater
	}
	q.turn = false
	q.out.writers--
	q.notifyLocked()
	return outBuf{}, outOver
}

// write sends bytes to the client, and waits until the client's socket has them.
func (t writeTurn) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	sock := t.s.client.sock
	sock.SetWait(true)
	err := t.writeOut(b)
	if err == nil {
		if err = sock.Flush(); err != nil {
			t.s.writeFailed(err)
		}
	}
	return err
}

// writeNow sends at most netio.MaxWriteNow bytes without waiting. It leaves to the socket's goroutine what the kernel does
// not take at once. hot
func (t writeTurn) writeNow(b []byte) error {
	t.s.client.sock.SetWait(false)
	return t.writeOut(b)
}

func (t writeTurn) writeOut(b []byte) error {
	s := t.s
	// Count first: the client must have no byte that is not counted.
	s.stripe.bytesOut.Add(uint64(len(b)))
	s.bytesOut += uint64(len(b))
	_, err := s.client.conn.Write(b)
	if err != nil {
		s.writeFailed(err)
	}
	return err
}

func (b *outBuf) free(to *netio.Account) {
	if b.chunk != nil {
		to.FreeChunk(b.chunk)
		return
	}
	to.FreePage(b.page)
}
