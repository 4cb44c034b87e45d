package proxy

import (
	"errors"
	"io"
	"os"
	"time"
)

// lastWord queues text as the last reply, behind everything that is owed. The session ends for reason once it is written,
// and takes no more from its client.
func (s *session) lastWord(text []byte, reason closeReason) {
	c := &s.client
	c.pend = append(c.pend, slot{kind: slotFinal, n: 1, text: text, reason: reason})
	c.ending = true
	s.flush()
}

// quit passes QUIT on, or answers it if the session needs no own connection. The session then ends. If the backend refuses
// the QUIT, quit returns true, and the session goes on.
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
		s.end(closeQuit) // in case the pump has ended without ending the session
		return false
	}
	return true
}

// clientEOF ends the session of a client that sends no more, after the client has got what it is owed. If one of its
// commands waits for other clients, clientEOF instead tells the backend at once, so that no element is popped for a client
// that is gone.
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
	up, _ := s.upstreamNow() // nil if nothing was sent yet
	unanswerable := 0
	if c.streamed != nil && !c.skipping && !s.uncounting() {
		unanswerable = 1 // the command of which the client has sent only a part
	}
	if up == nil || !s.settled(unanswerable) && !s.waiting() {
		s.end(closeClient)
		return
	}
	if s.waiting() {
		up.CloseWrite()
		s.limitBackend(s.server.c.lingerTimeout)
		<-s.pump.done
	}
	s.end(closeClient)
}

// limitBackend bounds by d how long the backend may be silent on the own connection from now on.
func (s *session) limitBackend(d time.Duration) {
	s.pump.limit.Store(int64(d))
	if up, _ := s.upstreamNow(); up != nil {
		up.Socket.SetReadDeadline(time.Now().Add(d))
		s.server.wake(up)
	}
}

// settled waits until no more than rest replies are owed to the client. It returns false if a command waits for other
// clients, or if the session has ended.
func (s *session) settled(rest int) bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waitLocked(func() bool {
		return q.blocked > 0 || q.owed <= rest && (!q.turn || q.uncounted())
	}) && q.blocked == 0
}

// settledWithin waits until nothing is owed to the client and everything is written, but at most d.
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
	s.park(func() bool { return late || q.owed == 0 && q.slots.Len() == 0 && !q.turn })
}

// linger runs after the last reply was queued (lastWord): it waits until the client has that reply, and drops what the
// client still sends. Closing a socket that has unread bytes would send a reset, which may destroy the reply on its way. If
// no last reply is queued, it does nothing.
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
			s.woken() // the sweeper may have interrupted too, if it looked at the session before the last reply was queued
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
		// Set it again each time: session.end may have replaced it by a deadline that has passed.
		c.sock.SetReadDeadline(limit)
		if _, err := io.Copy(io.Discard, c.sock); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
