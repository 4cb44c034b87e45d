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
	q.pushLocked(slots, 0) // no reply of a connection takes such a place: nobody asks when it was sent
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

// leaveToWriterLocked starts a writer goroutine and hands the turn to it. The writer ends when there is nothing left to
// write; finish waits for it. The caller must hold q.mu.
func (t writeTurn) leaveToWriterLocked() {
	t.s.queue.out.writers++
	go t.drain()
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

// writeFailed ends the session after a write to the client has failed with err.
func (s *session) writeFailed(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.kill(closeSlow)
	} else {
		s.kill(closeClientError)
	}
}
