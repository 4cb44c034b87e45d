package proxy

import (
	"sync/atomic"
	"time"

	"dragontls/proxy/netio"
)

// A session that has been idle for restAfter rests: its reader and its pump give up their goroutines. Each stack is a third of what
// an idle session costs. The watcher's epoll instance reports when the client or the backend sends something or leaves. A goroutine
// that needs a reader or a pump interrupts it, which also wakes one at rest.

// sleeper is what may rest: the reader of a session (*session) and the reader of its own connection (*ownConn).
type sleeper interface {
	rester() *rester
	socket() *netio.Socket
	mayRest() bool // reports whether it holds nothing of what it read, and nobody has interrupted it for anything else
	goOn()         // starts its goroutine again
}

// rester says whether a sleeper has a goroutine.
type rester struct {
	state atomic.Int32 // see restState
}

type restState = int32

const (
	restAwake    restState = iota
	restAsked              // it has one, which is to look whether it may rest
	restSettling           // its goroutine is about to end
	restResting            // it has none
)

// restIdle has the goroutines of idle sessions look whether they may rest. The sweeper calls it.
func (s *Server) restIdle() {
	if s.rests == nil {
		return
	}
	idle := s.now() - int64(s.c.restAfter)
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

// ask reports whether a goroutine is there and now asked to look. One that was asked before may have taken the interruption
// for something else, see hold.
func (r *rester) ask() bool {
	return r.state.CompareAndSwap(restAwake, restAsked) || r.state.Load() == restAsked
}

// rest is called by the goroutine of x after an interrupted read. It reports whether that goroutine is to end: then x belongs
// to whoever wakes it.
func (s *Server) rest(x sleeper) bool {
	return x.rester().state.CompareAndSwap(restAsked, restSettling) && s.settle(x)
}

// settle finishes what rest began: x is in restSettling. Its result is that of rest.
func (s *Server) settle(x sleeper) bool {
	r := x.rester()
	if x.mayRest() && s.rests.Add(x.socket(), x) && r.state.CompareAndSwap(restSettling, restResting) {
		return true
	}
	r.state.CompareAndSwap(restSettling, restAwake) // where this fails, wake has done it, and the sweeper may have asked again
	s.rests.Remove(x.socket(), x)
	return false
}

// wake starts the goroutine of x again if x rests, and keeps it if x is settling. The caller has first set what mayRest looks at.
// restAsked stays as it is: the read deadline of x has passed, and only that state tells the goroutine why.
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

// interrupt has the session's reader return from a read that waits, or go on where it rests. It may be called under any lock.
func (s *session) interrupt() {
	s.client.conn.SetReadDeadline(time.Now())
	s.server.wake(s)
}

func (s *session) rester() *rester       { return &s.rests }
func (s *session) socket() *netio.Socket { return s.client.sock }
func (s *session) goOn()                 { go s.read() } // ends with the session, Close waits for it

// mayRest is asked by the session's reader. crypto/tls may hold a part of a record or of a handshake message: it has asked the
// socket for the rest, which is what wakes the session.
func (s *session) mayRest() bool {
	c, q := &s.client, &s.queue
	if c.r < c.w || c.page != nil || c.chunk != nil || c.streamed != nil || len(c.pend) > 0 || c.outChunk != nil || c.recovering || c.eof || len(c.sock.Unread()) > 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.closed && !q.lost && (q.out == nil || q.out.resend == nil)
}

// askPump asks the pump to look whether it may rest, unless it is about to read the answer to a question of its own, or the
// backend has a time limit.
func (s *session) askPump() {
	p := &s.pump
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.up != nil && p.limit.Load() == 0 && (p.awaited == awaitNothing || p.outcome != outcomeNone) && p.up.rests.ask() {
		p.up.Socket.SetReadDeadline(time.Now())
	}
}

// pumpAsked is called by the pump when it finds restAsked after a read, and reports whether the pump's goroutine is to end. idle
// says that the read was interrupted and brought nothing. State and deadline change under pump.mu, as in askPump: no deadline that
// has passed is left without restAsked.
func (s *session) pumpAsked(up *ownConn, idle bool) bool {
	s.pump.mu.Lock()
	settles := idle && up.rests.state.CompareAndSwap(restAsked, restSettling)
	if !settles {
		up.rests.state.Store(restAwake)
	}
	up.Socket.SetReadDeadline(noTime)
	s.pump.mu.Unlock()
	return settles && s.server.settle(up)
}
