package proxy

import (
	"time"

	"dragontls/proxy/netio"
)

// watchInterval: how often a client whose bytes are not read any more is looked at.
const watchInterval = time.Second

// awaited is a reply that the reader has to know before it goes on.
type awaited uint8

const (
	awaitNothing awaited = iota
	awaitReset
	awaitQuit
	awaitDiscard // of a doomed transaction
)

type outcome uint8

const (
	outcomeNone outcome = iota
	outcomeDone
	outcomeRefused
)

// hold waits until cond, called under the queue's lock, says so. Meanwhile it reads on, up to a chunk, so that a
// client that goes away is noticed.
func (s *session) hold(cond func() bool) bool {
	c, q := &s.client, &s.queue
	c.holding = true
	defer func() { c.holding = false }()
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
			s.waitUnread()
			continue
		}
		q.wake = func() { c.conn.SetReadDeadline(time.Now()) }
		q.mu.Unlock()
		s.fill()
		q.mu.Lock()
		q.wake = nil
		if !q.closed && q.out.resend == nil && (!q.lost || c.recovering) { // else woken is still to come
			c.conn.SetReadDeadline(time.Time{})
		}
		q.mu.Unlock()
		if c.failed != nil {
			return false
		}
	}
}

// waitUnread waits for a change of the queue, whose lock it releases, while the client's bytes stay where they are.
func (s *session) waitUnread() {
	c, q := &s.client, &s.queue
	if c.eof {
		q.changed.Wait()
		q.mu.Unlock()
		return
	}
	t := time.AfterFunc(watchInterval, q.notify)
	q.changed.Wait()
	t.Stop()
	q.mu.Unlock()
	if fin, ended := s.lookAtClient(); fin && !ended {
		s.limitBackend(s.server.c.eofTimeout)
	}
}

// park waits until cond, called under the queue's lock, says so, and leaves the client's bytes where they are: frames
// of them may be in use. A client that vanishes is noticed. false: the session has ended.
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
	for !cond() && !q.closed {
		if q.out.resend != nil {
			q.mu.Unlock()
			s.resend()
			q.mu.Lock()
			continue
		}
		q.changed.Wait()
		if !look {
			continue
		}
		look = false
		t.Reset(watchInterval)
		q.mu.Unlock()
		if _, broken := s.client.sock.HungUp(); broken {
			s.kill(closeClientError)
		}
		q.mu.Lock()
	}
	return !q.closed
}

// await queues a frame, flushes it, and waits for what its reply says. Where the client has switched replies off, the backend
// says nothing of a refusal: the session ends when none has come after eofTimeout.
func (s *session) await(a awaited, kind slotKind, frame []byte) (refused, ok bool) {
	p := &s.pump
	if s.uncounting() {
		t := time.AfterFunc(s.server.c.eofTimeout, func() { s.end(closeReset) })
		defer t.Stop()
	}
	p.mu.Lock()
	p.awaited, p.outcome = a, outcomeNone
	p.mu.Unlock()
	if !s.makeRoomForOwn(len(frame)) {
		return false, false
	}
	s.queueFrame(frame, kind, false)
	if s.flush() != nil {
		return false, false
	}
	var o outcome
	ok = s.hold(func() bool {
		p.mu.Lock()
		o = p.outcome
		p.mu.Unlock()
		return o != outcomeNone
	})
	return o == outcomeRefused, ok
}
