package proxy

import (
	"sync/atomic"
	"time"

	"dragontls/proxy/netio"
)

// A session that has been idle for restAfter rests: its reader and its pump give up their goroutines, since each stack is a
// third of what an idle session costs. The watcher's epoll instance reports when the client or the backend sends something
// or leaves. Any other goroutine that needs the reader or the pump interrupts it, which also wakes it from rest.

// sleeper is what can rest: a session's reader (*session), or the pump that reads its own connection (*ownConn).
type sleeper interface {
	rester() *rester
	socket() *netio.Socket
	mayRest() bool // reports whether it holds nothing that it has read, and was interrupted for nothing but rest
	goOn()         // starts its goroutine again
}

// rester keeps whether a sleeper has a goroutine.
type rester struct {
	state atomic.Int32 // see restState
}

type restState = int32

const (
	restAwake    restState = iota
	restAsked              // its goroutine has been asked to check whether it may rest
	restSettling           // its goroutine is about to end
	restResting            // it has no goroutine
)

// restIdle asks the goroutines of idle sessions to check whether they may rest. The sweeper calls it.
func (s *Server) restIdle() {
	if s.rests == nil {
		return
	}
	idle := s.now().Add(-s.c.restAfter)
	s.each(func(n *session) {
		if n.lastActive.Load() > idle || n.holds.Load() != holdsNothing || n.owing() {
			return
		}
		if n.rests.ask() {
			n.client.conn.SetReadDeadline(time.Now())
		}
		n.askPump()
	})
}

// ask asks the sleeper's goroutine to check whether it may rest, and reports whether the caller must interrupt its read for
// that. It also returns true if the goroutine was asked before: it may have taken that interruption for another one, see
// hold.
func (r *rester) ask() bool {
	return r.state.CompareAndSwap(restAwake, restAsked) || r.state.Load() == restAsked
}

// rest is called by the goroutine of x after an interrupted read. If it returns true, x rests: the goroutine must end without
// touching x again, which now belongs to the goroutine that wakes it.
func (s *Server) rest(x sleeper) bool {
	return x.rester().state.CompareAndSwap(restAsked, restSettling) && s.settle(x)
}

// settle finishes what rest began. x must be in restSettling; the result is that of rest.
func (s *Server) settle(x sleeper) bool {
	r := x.rester()
	if x.mayRest() && s.rests.Add(x.socket(), x) && r.state.CompareAndSwap(restSettling, restResting) {
		return true
	}
	r.state.CompareAndSwap(restSettling, restAwake) // fails if wake has done so; then the sweeper may have asked again
	s.rests.Remove(x.socket(), x)
	return false
}

// wake starts the goroutine of x again if x rests, and keeps it from ending if x is settling. The caller must first have set
// what makes mayRest return false. wake leaves restAsked as it is: the read deadline of x has passed, and only that state tells
// the goroutine why.
func (s *Server) wake(x sleeper) {
	r := x.rester()
	for {
		switch was := r.state.Load(); {
		case was < restSettling:
			return
		case !r.state.CompareAndSwap(was, restAwake):
		case was == restResting:
			s.rests.Remove(x.socket(), x)
			x.goOn()
			return
		default:
			return
		}
	}
}

// interrupt makes the session's reader return from a read that waits, or wakes it from rest. It may be called under any lock.
func (s *session) interrupt() {
	s.client.conn.SetReadDeadline(time.Now())
	s.server.wake(s)
}

func (s *session) rester() *rester       { return &s.rests }
func (s *session) socket() *netio.Socket { return s.client.sock }
func (s *session) goOn()                 { go s.read() } // ends with the session, Close waits for it

// mayRest is called by the session's reader. It does not matter whether crypto/tls holds a part of a record or of a handshake
// message: it needs more bytes of the socket, and those wake the session.
func (s *session) mayRest() bool {
	c, q := &s.client, &s.queue
	if c.r < c.w || c.page != nil || c.chunk != nil || c.streamed != nil || len(c.pend) > 0 || c.out.Chunk != nil || c.recovering || c.eof || len(c.sock.Unread()) > 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.closed && (q.out == nil || q.out.resend == nil)
}

// askPump asks the pump to check whether it may rest, unless the session's reader waits for the outcome of a reply (await),
// or the backend's next bytes have a time limit (limitBackend).
func (s *session) askPump() {
	p := &s.pump
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.up != nil && p.limit.Load() == 0 && (p.awaited == awaitNothing || p.outcome != outcomeNone) && p.up.rests.ask() {
		p.up.setReadDeadline(time.Now())
	}
}

// pumpAsked is called by the pump when it finds restAsked after a read, and reports whether the pump's goroutine must end.
// idle means that the read was interrupted and brought nothing. Like askPump it changes state and deadline under pump.mu, so
// that no deadline that has passed is left without restAsked.
func (s *session) pumpAsked(up *ownConn, idle bool) bool {
	s.pump.mu.Lock()
	settles := idle && up.rests.state.CompareAndSwap(restAsked, restSettling)
	if !settles {
		up.rests.state.Store(restAwake)
	}
	up.setReadDeadline(noTime)
	s.pump.mu.Unlock()
	return settles && s.server.settle(up)
}
