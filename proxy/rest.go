package proxy

import "time"

// A session that has been idle for restAfter rests: it has no goroutine of its own, whose stack is a third of what an idle
// session costs. A watcher has the kernel say when its client sends something or leaves. Whoever wants the reader of a session
// interrupts it, and so wakes one at rest.

// restIdle has the readers of idle sessions look whether they may rest. The sweeper calls it.
func (s *Server) restIdle() {
	if s.rests == nil {
		return
	}
	idle := s.now() - int64(s.c.restAfter)
	s.each(func(n *session) {
		if n.lastActive.Load() <= idle && n.hand.Load() == handEmpty && !n.owing() && n.askToRest() {
			n.client.conn.SetReadDeadline(time.Now())
		}
	})
}

// askToRest reports whether the reader of the session is there and now asked. One that was asked before may have taken the
// interruption for something else, see hold.
func (s *session) askToRest() bool {
	return s.resting.CompareAndSwap(restAwake, restAsked) || s.resting.Load() == restAsked
}

// restState says whether a session has a reader goroutine.
type restState = int32

const (
	restAwake    restState = iota
	restAsked              // it has one, which is to look whether the session may rest
	restSettling           // its reader is about to end
	restResting            // it has none
)

// rest gives the goroutine of the reader up, which calls it after an interrupted read, if nothing of the session needs it.
// It reports whether it did: then the session belongs to whoever wakes it.
func (s *session) rest() bool {
	if !s.resting.CompareAndSwap(restAsked, restSettling) {
		return false
	}
	if s.mayRest() && s.server.rests.add(s) && !s.isCalled() && s.resting.CompareAndSwap(restSettling, restResting) {
		return true
	}
	s.resting.Store(restAwake)
	s.server.rests.remove(s)
	return false
}

// mayRest reports whether the reader holds nothing of what it read and has nothing to do. crypto/tls may hold a part of a record
// or of a handshake message: it has asked the socket for the rest, which is what wakes the session.
func (s *session) mayRest() bool {
	c := &s.client
	return c.r == c.w && c.page == nil && c.chunk == nil && c.streamed == nil && len(c.pend) == 0 && c.outChunk == nil && !c.recovering && !c.eof &&
		c.sock.page == nil
}

// isCalled reports whether the session has ended, or its reader is wanted for something else than what the client sends.
func (s *session) isCalled() bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed || q.lost || q.out != nil && q.out.refetch != nil
}

// interrupt has the reader return from a read that waits, or go on where it rests. It may be called under any lock.
func (s *session) interrupt() {
	s.client.conn.SetReadDeadline(time.Now())
	s.wake()
}

// wake gives a session at rest a goroutine again, and keeps the one of a session that is settling.
func (s *session) wake() {
	if s.resting.Swap(restAwake) == restResting {
		s.server.rests.remove(s)
		go s.read() // ends with the session, Close waits for it
	}
}
