package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// watchInterval: how often a client whose bytes are not read any more is looked at.
const watchInterval = time.Second

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
		if q.out.refetch != nil {
			q.mu.Unlock()
			s.refetch()
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
		if !q.closed && q.out.refetch == nil && (!q.lost || c.recovering) { // else woken is still to come
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

// reset passes RESET on alone: nothing is owed before it, and nothing follows before its reply is known.
func (s *session) reset(frame []byte) bool {
	c := &s.client
	frame = append([]byte(nil), frame...)
	s.account().Hold(int64(len(frame)))
	defer s.account().Hold(-int64(len(frame)))
	if !c.uncount {
		if s.flush() != nil || !s.hold(func() bool { return s.queue.owed == 0 }) {
			return false
		}
	}
	refused, ok := s.await(awaitReset, slotReset, frame)
	if !ok {
		return false
	}
	if refused && c.uncount && s.ownUser() {
		// Whose reply that error was cannot be known: the connection may act as another user by now.
		s.end(closeReset)
		return false
	}
	if !refused {
		c.multi, c.doomed, c.uncount = false, false, false
		s.subscribed.Store(false)
	}
	return true
}

// discard goes in the place of a doomed EXEC. Where the backend does not permit it, the transaction is still there
// and stays doomed.
func (s *session) discard() bool {
	c := &s.client
	refused, ok := s.await(awaitDiscard, slotExec, resp.AppendCommand(nil, "DISCARD"))
	c.multi, c.doomed = refused, refused
	return ok
}

// quit passes QUIT on, and nothing behind it unless it is refused.
func (s *session) quit(frame []byte) bool {
	if s.needsNoOwn() {
		s.lastWord(textOK, closeQuit)
		return false
	}
	refused, ok := s.await(awaitQuit, slotQuit, frame)
	if !ok {
		return false
	}
	if !refused {
		s.client.r = s.client.w
		s.limitBackend(s.server.c.lingerTimeout)
		<-s.pump.done
		s.end(closeQuit) // where the own connection was closed for another reason
		return false
	}
	return true
}

// await queues a frame, flushes it, and waits for what its reply says. Where the client has switched replies off, the backend
// says nothing of a refusal: the session ends when none has come after eofTimeout.
func (s *session) await(a awaited, kind slotKind, frame []byte) (refused, ok bool) {
	p := &s.pump
	if s.client.uncount {
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

// clientEOF: the client sends no more. What it is owed still arrives, unless a command of it waits for others: then
// the backend is told at once, so that no element is popped for nobody.
func (s *session) clientEOF() {
	c := &s.client
	if c.ending || s.flush() != nil || s.ended() {
		return
	}
	if !s.waiting() && (s.at.on != routeOwn || !s.hasOwn()) {
		s.settledWithin(s.server.c.eofTimeout)
		s.end(closeClient)
		return
	}
	up, _ := s.upstreamNow() // nil: nothing was sent yet
	unanswerable := 0
	if c.streamed != nil && !c.skipping && !c.uncount {
		unanswerable = 1 // the command that ends here in its middle
	}
	if up == nil || !s.settled(unanswerable) && !s.waiting() {
		s.end(closeClient)
		return
	}
	if s.waiting() {
		up.closeWrite()
		s.limitBackend(s.server.c.lingerTimeout)
		<-s.pump.done
	}
	s.end(closeClient)
}

// limitBackend bounds the wait for each of the backend's next bytes.
func (s *session) limitBackend(d time.Duration) {
	s.pump.limit.Store(int64(d))
	if up, _ := s.upstreamNow(); up != nil {
		up.sock.SetReadDeadline(time.Now().Add(d))
		s.server.wake(up)
	}
}

// settled waits until no more than rest replies are owed to the client. false: a command waits for others, or the session has ended.
func (s *session) settled(rest int) bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waitLocked(func() bool {
		return q.blocked > 0 || q.owed <= rest && (!q.turn || q.uncounted)
	}) && q.blocked == 0
}

// settledWithin waits until nothing is owed to the client, at most d.
func (s *session) settledWithin(d time.Duration) {
	q := &s.queue
	late := false
	t := time.AfterFunc(d, func() {
		q.mu.Lock()
		late = true
		q.notifyLocked()
		q.mu.Unlock()
	})
	defer t.Stop()
	s.park(func() bool { return late || q.owed == 0 && q.size == 0 && !q.turn })
}

// linger waits for our last word to leave and drops what the client still sends: closing a socket with unread
// bytes would send a reset that destroys it.
func (s *session) linger() {
	c := &s.client
	if !c.ending || c.failed != nil {
		return
	}
	c.sock.BeforeWait = func() error { c.sock.CountTLS(); return nil }
	c.r, c.w = 0, 0
	s.setBuf(nil, nil)
	for !s.ended() {
		_, err := c.conn.Read(c.small[:])
		if err == nil {
			c.sock.Decrypted()
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.woken() // by the sweeper too, which may have looked before the last word
			continue
		}
		s.limitBackend(s.server.c.eofTimeout)
		if s.at.on != routeOwn {
			s.settledWithin(s.server.c.eofTimeout)
			s.end(closeClient)
		} else if !s.settled(0) {
			s.end(closeClient)
		}
		<-s.done
	}
	c.conn.CloseWrite()
	c.sock.FlushWithin(s.server.c.lingerTimeout)
	c.sock.CloseWrite()
	for limit := time.Now().Add(s.server.c.lingerTimeout); time.Now().Before(limit); {
		// end may have set a deadline after this one.
		c.sock.SetReadDeadline(limit)
		if _, err := io.Copy(io.Discard, c.sock); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
