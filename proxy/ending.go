package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"dragontls/proxy/command"
	"dragontls/proxy/netio"
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
// the QUIT, or queues it in a transaction, quit returns true, and the session goes on. QUIT goes alone, once everything that
// is owed has arrived: Dragonfly may drop replies that it has not sent when it reads QUIT.
func (s *session) quit(cmd *command.Command, frame []byte) bool {
	frame = append([]byte(nil), frame...)
	s.setAwaited(awaitReplies) // if they are lost, the session ends with them
	if s.flush() != nil {
		return false
	}
	if s.needsNoOwn() {
		s.count(cmd)
		s.lastWord(textOK, closeQuit)
		return false
	}
	if !s.settleBefore() {
		return false
	}
	s.count(cmd)
	switch o, ok := s.await(awaitQuit, slotQuit, frame); {
	case !ok:
		return false
	case o == outcomeDone:
		s.awaitClose()
		return false
	case o == outcomeQueued:
		s.transact(txQueuesQuit)
	}
	return true
}

// execQuit passes on, alone, the EXEC of a transaction in which QUIT is queued. If the transaction runs, the session ends as
// after QUIT. Otherwise execQuit returns true, and the session goes on.
func (s *session) execQuit(frame []byte) bool {
	c := &s.client
	frame, next := append([]byte(nil), frame...), c.next
	if !s.settleBefore() {
		return false
	}
	c.next = next
	o, ok := s.await(awaitExec, slotQuit, frame)
	if ok && o == outcomeDone {
		s.awaitClose()
		return false
	}
	s.transact(txEnds)
	return ok
}

// awaitClose waits until the backend closes the own connection after QUIT, and ends the session. What the client sent after
// QUIT is dropped.
func (s *session) awaitClose() {
	s.client.r = s.client.w
	s.limitBackend(s.server.c.lingerTimeout)
	<-s.pump.done
	s.end(closeQuit) // in case the pump has ended without ending the session
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
		s.settledWithin(s.server.eofTimeout())
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
		s.setAwaited(awaitEnd)
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
		up.setReadDeadline(time.Now().Add(d))
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
	s.parkWithin(d, func() bool { return q.owed == 0 && q.slots.Len() == 0 && !q.turn })
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
		s.limitBackend(s.server.eofTimeout())
		if s.at.on != routeOwn {
			s.settledWithin(s.server.eofTimeout())
			s.end(closeClient)
		} else if !s.settled(0) {
			s.end(closeClient)
		}
		<-s.done
	}
	s.dropRest()
}

// dropRest tells the client that nothing more comes, and drops what it still sends: until it has been silent for
// lingerTimeout, but at most lingerLimit. A client that writes a whole command before it reads is then able to read why the
// command was refused. The session's reader calls it after the session has ended.
func (s *session) dropRest() {
	c, t := &s.client, &s.server.c.timeouts
	c.sock.BeforeWait = nil
	c.conn.CloseWrite()
	c.sock.FlushWithin(t.lingerTimeout)
	c.sock.CloseWrite()
	last := time.Now()
	for end := last.Add(t.lingerLimit); ; {
		until := last.Add(t.lingerTimeout)
		if end.Before(until) {
			until = end
		}
		if !time.Now().Before(until) {
			return
		}
		// Set it again each time: session.end may have replaced it by a deadline that has passed.
		c.sock.SetReadDeadline(until)
		n, err := io.CopyN(io.Discard, c.sock, netio.ChunkSize)
		if n > 0 {
			last = time.Now()
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// isCutShort reports whether the backend has ended the session while its client was sending a command, which may be what the
// backend's last reply is about.
func (s *session) isCutShort() bool {
	c := &s.client
	ofBackend := s.reason == closeBackend || s.reason == closeBackendError
	return ofBackend && c.failed == nil && !c.eof && (c.streamed != nil || c.r < c.w)
}
