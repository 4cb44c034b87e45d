package proxy

import (
	"errors"
	"os"

	"dragontls/proxy/netio"
)

// writeTurn is the right to write to a session's client. A goroutine that gets one writes, between two replies of others,
// and then gives it up exactly once: by Release or settleAndRelease, by drain or DrainNow, or by ending the session.
// replyOrder.turn is set while somebody has it. A lane keeps turns as lane.Turn, which has no other methods.
type writeTurn struct{ s *session }

// noTurn means that the caller may not write.
var noTurn writeTurn

func (t writeTurn) held() bool { return t.s != nil }

// acquireTurn waits until nobody else has the turn and no reply of a lane is half delivered, and then takes the turn. The
// pump calls it. It returns noTurn if the session has ended.
func (s *session) acquireTurn() writeTurn {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.waitLocked(func() bool { return !q.turn && !q.half }) {
		return noTurn
	}
	q.turn = true
	return writeTurn{s}
}

// turnForLocalsLocked takes and returns the turn if it is free and the next thing due to the client is a local reply. The
// caller must hold q.mu, unlock it, and then release the turn, which writes the reply.
func (s *session) turnForLocalsLocked() writeTurn {
	q := &s.queue
	if q.turn || !q.localFirstLocked() {
		return noTurn
	}
	q.turn = true
	return writeTurn{s}
}

// hasTurn reports whether somebody has the turn.
func (q *replyOrder) hasTurn() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.turn
}

// push appends slots that no connection answers: local replies and marks. It writes the local replies that are due, unless
// somebody else has the turn and will do so.
func (s *session) push(slots []slot) {
	q := &s.queue
	q.mu.Lock()
	for _, l := range slots {
		q.pushLocked(l)
	}
	t := s.turnForLocalsLocked()
	q.mu.Unlock()
	t.Release()
}

// Release writes the local replies that are due and then gives the turn up. On noTurn it does nothing.
func (t writeTurn) Release() {
	if t.held() {
		_ = t.settleAndRelease(0, 0) // its error has ended the session
	}
}

// settle accounts for n replies that were written. unblocked is the number of slots of blocking commands that ended with
// them. The caller keeps the turn.
func (t writeTurn) settle(n, unblocked int) {
	q := &t.s.queue
	q.mu.Lock()
	q.settleLocked(n, unblocked)
	q.notifyLocked()
	q.mu.Unlock()
}

func (q *replyOrder) settleLocked(n, unblocked int) {
	q.owed -= n
	q.blocked -= unblocked
	q.answered = q.answered || n > 0
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

// writeLocals writes the local replies that are due.
func (t writeTurn) writeLocals() error {
	for l, ok := t.s.queue.nextLocal(); ok; l, ok = t.s.queue.nextLocal() {
		if err := t.writeLocal(l); err != nil {
			return err
		}
	}
	return nil
}

// writeLocal writes a local reply. If it is the final one, it ends the session and returns errEnded.
func (t writeTurn) writeLocal(l slot) error {
	for range l.n {
		if err := t.write(l.text); err != nil {
			return err
		}
	}
	if l.kind != slotFinal {
		return nil
	}
	t.s.client.conn.CloseWrite()
	t.s.end(l.reason)
	return errEnded
}

// write sends bytes to the client, and waits until the client's socket has them.
func (t writeTurn) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	sock := t.s.client.sock
	sock.SetWait(true)
	if err := t.writeOut(b); err != nil {
		return err
	}
	return t.s.writeFailed(sock.Flush())
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
	if _, err := s.client.conn.Write(b); err != nil {
		return s.writeFailed(err)
	}
	return nil
}

// writeFailed ends the session if err, the result of a write to the client, is not nil. It returns err.
func (s *session) writeFailed(err error) error {
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.kill(closeSlow)
	default:
		s.kill(closeClientError)
	}
	return err
}

// leaveToWriterLocked starts a writer goroutine and hands the turn to it. The writer ends when there is nothing left to
// write; finish waits for it. The caller must hold q.mu.
func (t writeTurn) leaveToWriterLocked() {
	t.s.queue.out.writers++
	go t.drain()
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
	if wait && s.writeFailed(s.client.sock.Flush()) != nil {
		t.drop()
		return false
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
	q.sentLocked(wrote)
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

// sentLocked accounts for n bytes that the client's socket has taken. hot
func (q *replyOrder) sentLocked(n int) {
	before := q.out.unsent
	q.out.unsent = max(0, before-n)
	if n > 0 && before > netio.PageSize {
		q.notifyLocked()
	}
}

// drop empties the outbox and gives the turn up, after a failed write or a panic. That has ended the session, so nothing is
// written any more.
func (t writeTurn) drop() {
	q := &t.s.queue
	q.mu.Lock()
	q.out.clear(t.s.account())
	q.turn = false
	q.notifyLocked()
	q.mu.Unlock()
}

// writerEnded accounts for the end of a writer that did not end by outOver.
func (q *replyOrder) writerEnded() {
	q.mu.Lock()
	q.out.writers--
	q.notifyLocked()
	q.mu.Unlock()
}

// awaitWriters waits for the writers of a session that has ended and whose socket is closed, and then empties the outbox.
func (q *replyOrder) awaitWriters(a *netio.Account) {
	q.mu.Lock()
	for q.out.writers > 0 {
		q.changed.Wait()
	}
	q.out.clear(a)
	q.mu.Unlock()
}
