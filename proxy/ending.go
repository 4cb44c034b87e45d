package proxy

import (
	"errors"
	"io"
	"os"
	"time"
)

// lastWord queues text behind everything that is owed and ends the session behind it.
func (s *session) lastWord(text []byte, reason closeReason) {
	c := &s.client
	c.pend = append(c.pend, slot{kind: slotFinal, n: 1, text: text, reason: reason})
	c.ending = true
	s.flush()
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
	if c.streamed != nil && !c.skipping && !s.uncounting() {
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
		return q.blocked > 0 || q.owed <= rest && (!q.turn || q.uncounted())
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
	s.park(func() bool { return late || q.owed == 0 && q.slots.len() == 0 && !q.turn })
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
