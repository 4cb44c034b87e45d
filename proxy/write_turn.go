package proxy

import (
	"errors"
	"os"

	"dragontls/proxy/netio"
)

// writeTurn is the right to write to a session's client. Whoever gets one writes, between two replies of others, and then
// gives it up once: by release, by drain or drainNow, or by ending the session. q.turn says that somebody has it.
type writeTurn struct{ s *session }

// noTurn is what those get who may not write.
var noTurn writeTurn

func (t writeTurn) held() bool { return t.s != nil }

// acquireTurn waits until nobody else writes to the client, between two replies; the pump calls it. noTurn: the session has
// ended.
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

// turnForLocalsLocked gives the turn where it is free and the next thing that the client waits for is a reply of ours.
func (s *session) turnForLocalsLocked() writeTurn {
	q := &s.queue
	if q.turn || !q.localFirstLocked() {
		return noTurn
	}
	q.turn = true
	return writeTurn{s}
}

// hasTurn reports whether somebody writes to the client.
func (q *replyOrder) hasTurn() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.turn
}

// push appends slots that go nowhere: replies of ours, and the marks between them. Those that are due are written.
func (s *session) push(slots []slot) {
	q := &s.queue
	q.mu.Lock()
	for _, l := range slots {
		q.pushLocked(l)
	}
	t := s.turnForLocalsLocked()
	q.mu.Unlock()
	t.release()
}

// release gives the turn up, once the replies of ours that are due are written. noTurn does nothing.
func (t writeTurn) release() {
	if t.held() {
		_ = t.settleAndRelease(0, 0) // its error has ended the session
	}
}

// settle accounts for n replies that were written and, where a blocking run ended, unblocked of them.
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

// settleAndRelease does both. An error has ended the session, and nobody writes after it.
func (t writeTurn) settleAndRelease(n, unblocked int) error {
	for t.keptForLocals(n, unblocked) {
		if err := t.writeLocals(); err != nil {
			return err
		}
		n, unblocked = 0, 0
	}
	return nil
}

// keptForLocals settles, and gives the turn up unless a reply of ours is due.
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

// writeLocals writes the replies of ours that are due.
func (t writeTurn) writeLocals() error {
	for l, ok := t.s.queue.nextLocal(); ok; l, ok = t.s.queue.nextLocal() {
		if err := t.writeLocal(l); err != nil {
			return err
		}
	}
	return nil
}

// writeLocal writes a reply of ours, and ends the session where it is the last.
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

// write sends bytes to the client, and waits until its socket has them.
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

// writeNow sends at most netio.MaxWriteNow bytes, and leaves to the socket's goroutine what would wait. hot
func (t writeTurn) writeNow(b []byte) error {
	t.s.client.sock.SetWait(false)
	return t.writeOut(b)
}

func (t writeTurn) writeOut(b []byte) error {
	s := t.s
	// First: the client has no byte that is not counted.
	s.stripe.bytesOut.Add(uint64(len(b)))
	s.bytesOut += uint64(len(b))
	if _, err := s.client.conn.Write(b); err != nil {
		return s.writeFailed(err)
	}
	return nil
}

// writeFailed ends the session where a write has failed.
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

// leaveToWriterLocked hands the turn to a writer goroutine, which ends with what there is to write; finish waits for it.
func (t writeTurn) leaveToWriterLocked() {
	t.s.queue.out.writers++
	go t.drain()
}

// drain is the writer goroutine: it writes what is in the outbox, and gives the turn up.
func (t writeTurn) drain() { t.writeOutbox(true) }

// drainNow does so for a lane's reader, which must not wait: what would is left to a writer goroutine. hot
func (t writeTurn) drainNow() {
	if t.writeOutbox(false) {
		go t.drain()
	}
}

// writeOutbox does the work of a writer. left: the turn is still its own, and the rest has to wait. hot
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
			return false // with the turn: nobody writes anything behind what was dropped
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

// writeBuf writes b and gives it back, whatever comes of the write. hot
func (t writeTurn) writeBuf(b outBuf, wait bool) error {
	defer b.free(t.s.account())
	if wait {
		return t.write(b.bytes())
	}
	return t.writeNow(b.bytes())
}

type nextOut uint8

const (
	outBytes  nextOut = iota
	outLocals         // a reply of ours
	outLater          // what may not be written now
	outOver           // nothing: the turn is given up, and the writer has ended
	outEnded          // nothing any more
)

// next accounts for what a writer wrote, and gives it what comes next. hot
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

// sentLocked accounts for bytes that the client's socket has taken. hot
func (q *replyOrder) sentLocked(n int) {
	before := q.out.unsent
	q.out.unsent = max(0, before-n)
	if n > 0 && before > netio.PageSize {
		q.notifyLocked()
	}
}

// drop gives the turn up after a failed write: nothing is written any more.
func (t writeTurn) drop() {
	q := &t.s.queue
	q.mu.Lock()
	q.out.clear(t.s.account())
	q.turn = false
	q.notifyLocked()
	q.mu.Unlock()
}

func (q *replyOrder) writerEnded() {
	q.mu.Lock()
	q.out.writers--
	q.notifyLocked()
	q.mu.Unlock()
}

// awaitWriters waits for the writer goroutines of a session that has ended and whose socket is closed.
func (q *replyOrder) awaitWriters(a *netio.Account) {
	q.mu.Lock()
	for q.out.writers > 0 {
		q.changed.Wait()
	}
	q.out.clear(a)
	q.mu.Unlock()
}
