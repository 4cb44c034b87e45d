package proxy

import (
	"bytes"
	"math"
	"strings"
	"time"

	"dragontls/proxy/netio"
)

// watchInterval is how often the proxy looks whether a client is still there while it does not read from it.
const watchInterval = time.Second

// awaited says for which reply the session's reader waits before it goes on.
type awaited uint8

const (
	awaitNothing     awaited = iota
	awaitReplies             // what is owed before a QUIT, which goes alone
	awaitReset               // RESET
	awaitFutileReset         // RESET with an argument, which no backend accepts
	awaitQuit                // QUIT
	awaitExec                // the EXEC of a transaction in which QUIT is queued
	awaitDiscard             // in place of the EXEC of a doomed transaction
	awaitEnd                 // the end of the connection: the client has left, and the backend has been told
)

// outcome is what the awaited reply was, as the pump decides.
type outcome uint8

const (
	outcomeNone    outcome = iota // it has not come yet
	outcomeDone                   // the backend has done what was asked
	outcomeRefused                // the backend has refused it
	outcomeQueued                 // the backend has queued a QUIT, which the EXEC of the open transaction is to run
)

// hold waits until cond, which it calls with the queue's lock held, returns true. Meanwhile it reads from the client, up to
// a chunk, to notice when the client goes away. It returns false if the session has ended or reading has failed. The
// session's reader calls it.
func (s *session) hold(cond func() bool) bool {
	c, q := &s.client, &s.queue
	c.holding = true
	defer func() { c.holding = false }()
	left := false // the client has left, although not all that it sent was read
	for {
		q.mu.Lock()
		if cond() || q.closed {
			ok := !q.closed
			q.mu.Unlock()
			return ok
		}
		if q.out.resend != nil {
			q.mu.Unlock()
			s.resend()
			continue
		}
		if c.eof || c.w-c.r == netio.ChunkSize {
			if c.eof && q.blocked > 0 {
				q.mu.Unlock()
				s.end(closeClient)
				return false
			}
			left = s.waitUnread(left || c.eof)
			continue
		}
		q.wake = func() { c.conn.SetReadDeadline(time.Now()) }
		q.mu.Unlock()
		s.fill()
		q.mu.Lock()
		q.wake = nil
		if !q.closed && q.out.resend == nil { // otherwise the deadline must stay until woken runs
			c.conn.SetReadDeadline(time.Time{})
		}
		q.mu.Unlock()
		if c.failed != nil {
			return false
		}
	}
}

// waitUnread waits for a change of the queue, without reading from the client, and looks now and then whether the client is
// still there. left says that it is not, and waitUnread reports whether it has left: the session then ends when nothing changes for
// eofTimeout. The caller holds the queue's lock, which waitUnread releases.
func (s *session) waitUnread(left bool) bool {
	q := &s.queue
	if left {
		t := s.endAfter(s.server.eofTimeout())
		q.changed.Wait()
		t.Stop()
		q.mu.Unlock()
		return true
	}
	t := time.AfterFunc(watchInterval, q.notify)
	q.changed.Wait()
	t.Stop()
	q.mu.Unlock()
	fin, ended := s.lookAtClient()
	if fin && !ended {
		s.abandonLane()
		s.limitBackend(s.server.eofTimeout())
	}
	return fin
}

// endAfter ends the session after d, because its client has left, unless the caller stops the timer before.
func (s *session) endAfter(d time.Duration) *time.Timer {
	return time.AfterFunc(d, func() { s.end(closeClient) })
}

// parkWithin is park that waits for d at most.
func (s *session) parkWithin(d time.Duration, cond func() bool) bool {
	q := &s.queue
	late := false
	t := time.AfterFunc(d, func() {
		q.mu.Lock()
		late = true
		q.notifyLocked()
		q.mu.Unlock()
	})
	defer t.Stop()
	return s.park(func() bool { return late || cond() })
}

// park waits until cond, which it calls with the queue's lock held, returns true. Unlike hold it does not read from the
// client, since frames in the buffer may be in use, but it notices a client whose connection breaks, or which has left: then
// the session ends when nothing changes for eofTimeout. It returns false if the session has ended. The session's reader calls
// it.
func (s *session) park(cond func() bool) bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if cond() || q.closed {
		return !q.closed
	}
	look := false
	t := time.AfterFunc(watchInterval, func() {
		q.mu.Lock()
		look = true
		q.notifyLocked()
		q.mu.Unlock()
	})
	defer t.Stop()
	var left *time.Timer // runs once the client has left
	for !cond() && !q.closed {
		if q.out.resend != nil {
			q.mu.Unlock()
			s.resend()
			q.mu.Lock()
			continue
		}
		q.changed.Wait()
		if !look {
			if left != nil {
				left.Reset(s.server.eofTimeout())
			}
			continue
		}
		look = false
		t.Reset(watchInterval)
		q.mu.Unlock()
		switch fin, broken := s.client.sock.HungUp(); {
		case broken:
			s.kill(closeClientError)
		case fin && left == nil:
			s.abandonLane()
			left = s.endAfter(s.server.eofTimeout())
			defer left.Stop()
		}
		q.mu.Lock()
	}
	return !q.closed
}

// settleBefore submits the batch and waits until nothing is owed, so that the command after it goes alone. If replies are
// not counted, it does not wait. It returns false if the session takes no more from its client. The wait reads from the
// client, so frames in the buffer are not valid after it.
func (s *session) settleBefore() bool {
	return s.flush() == nil && (s.uncounting() || s.hold(func() bool { return s.queue.owed == 0 }))
}

func (s *session) setAwaited(a awaited) {
	s.pump.mu.Lock()
	s.pump.awaited, s.pump.outcome = a, outcomeNone
	s.pump.mu.Unlock()
}

// awaitSlots waits until the queue has fewer than maxSlots slots. It returns false if the session has ended or the batch
// could not be submitted.
func (s *session) awaitSlots() bool {
	q := &s.queue
	if s.flush() != nil { // the wait may last for hours, and must not hold back commands that were judged before it
		return false
	}
	q.full = false
	return s.hold(func() bool { return q.slots.Len() < maxSlots })
}

// awaitTaken waits until the client has taken most of its replies. A client that takes none for followTimeout may be one that
// writes all its commands before it reads: the session then uses its own connection for a while, as one with big replies
// does. The backend holds the replies to what it sends from then on, as over a direct connection.
func (s *session) awaitTaken() {
	q := &s.queue
	for before, stuck := math.MaxInt, false; ; {
		late := false
		t := time.AfterFunc(s.server.c.followTimeout, func() {
			q.mu.Lock()
			late, stuck, before = true, q.out.unsent >= before, q.out.unsent
			q.notifyLocked()
			q.mu.Unlock()
		})
		over := false
		goesOn := s.park(func() bool {
			over = q.out.littleUnsent()
			return over || late
		})
		t.Stop()
		if !goesOn || over {
			return
		}
		if stuck {
			break
		}
	}
	if s.ownUntil.Load() != forGood {
		s.ownUntil.Store(s.server.now().Add(s.server.c.ownAfterBig))
	}
}

// await sends a frame over the own connection and waits for its reply. ok is false if the session takes no more from its
// client. If replies are not counted, none may come, as after CLIENT REPLY OFF: await then ends the session after eofTimeout.
func (s *session) await(a awaited, kind slotKind, frame []byte) (o outcome, ok bool) {
	p := &s.pump
	if s.uncounting() {
		t := time.AfterFunc(s.server.eofTimeout(), func() { s.end(closeReset) })
		defer t.Stop()
	}
	s.setAwaited(a)
	if !s.makeRoomForOwn(len(frame)) {
		return outcomeNone, false
	}
	s.queueFrame(frame, kind, false)
	if s.flush() != nil {
		return outcomeNone, false
	}
	ok = s.hold(func() bool {
		p.mu.Lock()
		o = p.outcome
		p.mu.Unlock()
		return o != outcomeNone
	})
	return o, ok
}

// special handles a whole reply that may be the one for which the session's reader waits in await: that to RESET, to QUIT or
// to an EXEC that runs QUIT. If replies are not counted, it must find that reply among all others.
func (d *relaying) special() error {
	s, p, q := d.s, &d.s.pump, &d.s.queue
	p.mu.Lock()
	a, decided := p.awaited, p.outcome != outcomeNone
	p.mu.Unlock()
	kind, line := p.replies.Kind(), p.replies.Line()
	isReset := (a == awaitReset || a == awaitFutileReset) && kind == '+' && string(line) == "RESET"
	isQueued := a == awaitQuit && kind == '+' && string(line) == "QUEUED"
	if q.uncounted() {
		if a == awaitNothing || a == awaitReplies || decided || !isReset && !isQueued && !(kind == '-' && mayRefuse(line)) {
			return nil
		}
	} else {
		if q.run.note != nil {
			s.noted(q.run.note, &p.replies)
		}
		d.count()
	}
	if err := d.flush(); err != nil {
		return err
	}
	switch {
	case isReset:
		return d.resetDone()
	case a == awaitReset:
		return d.resetRefused()
	case isQueued:
		s.decide(outcomeQueued)
	case kind == '-', a == awaitFutileReset, a == awaitExec && (kind != '*' || p.replies.Null()):
		s.decide(outcomeRefused)
	default:
		s.decide(outcomeDone)
	}
	return nil
}

// mayRefuse reports whether an error that came while replies are not counted is one that RESET and QUIT themselves can get.
// Any other belongs to an earlier command.
func mayRefuse(line []byte) bool {
	return bytes.HasPrefix(line, []byte("NOPERM")) || bytes.HasPrefix(line, []byte("ERR wrong number of arguments for 'reset'"))
}

// withhold keeps n bytes of the reply to a DISCARD that was sent in place of a doomed EXEC. Once the reply is whole, the
// client gets EXECABORT if it is +OK, or else the reply itself.
func (d *relaying) withhold(n int, done bool) error {
	s, p := d.s, &d.s.pump
	if len(p.held)+n > maxHeld {
		s.end(closeBackendError)
		return errEnded
	}
	if err := d.flush(); err != nil {
		return err
	}
	d.hold(n)
	if !done {
		return nil
	}
	text := p.held
	if p.replies.Kind() == '+' && string(p.replies.Line()) == "OK" {
		text = textExecAbort
		s.stickyEnded.Store(s.stickies.Load()) // the session's reader waits in await, and adds no more stickies
	}
	d.count() // before the write, so that no reply is written that is not counted
	err := p.turn.write(text)
	s.dropHeld()
	if p.replies.Kind() == '-' && strings.HasPrefix(string(p.replies.Line()), "NOPERM") {
		s.decide(outcomeRefused)
	} else {
		s.decide(outcomeDone)
	}
	return err
}

// hold keeps the next n bytes in pump.held instead of passing them on.
func (d *relaying) hold(n int) {
	d.s.pump.held = append(d.s.pump.held, d.b[d.i:d.i+n]...)
	d.s.account().Hold(int64(n))
	d.i += n
	d.start = d.i
}

// decide tells the session's reader the outcome of what it awaits. relay wakes the reader when it settles.
func (s *session) decide(o outcome) {
	s.pump.mu.Lock()
	s.pump.outcome = o
	s.pump.mu.Unlock()
}
