package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/resp"
)

// pump's fields belong to the pump goroutine, but for what mu guards.
type pump struct {
	conn    *backendConn // what the pump reads until it ends; up is the same connection, until closeOwn or ownEnded clears it
	replies resp.Replies
	held    []byte // a reply that is not passed on before it is known whole
	done    chan struct{}
	limit   atomic.Int64 // nanoseconds that the backend may be silent, once nobody listens for long; 0: any time
	turn    writeTurn    // while a frame is half out
	dials   *bucket      // for own connections after the first, see awaitDial; nil: it is full

	mu sync.Mutex
	// guarded by mu
	dialled bool // the session has had a backend connection of its own
	up      *backendConn
	upErr   error
	wanted  time.Time     // since when a command waits for the backend
	want    chan struct{} // closed then
	awaited awaited
	outcome outcome

	inUse   bool  // by the reader: nobody else closes it
	used    int64 // since then it is not
	closing bool  // closed by us while idle
	dirty   bool  // to be closed once nothing is owed
}

// runPump is the pump goroutine: it passes the backend's replies on as they come, in their places. It ends with the
// backend connection, or when the session does, for which the reader waits, or when the connection rests.
func (s *session) runPump() {
	s.server.owners.add(s)
	if s.pumpOn() {
		return
	}
	s.dropUpstream()
	s.server.owners.remove(s)
	close(s.pump.done)
}

// pumpOn reports whether the connection rests; otherwise it has ended.
func (s *session) pumpOn() (rests bool) {
	p := &s.pump
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	if p.conn == nil && !s.connect() {
		return false
	}
	for {
		switch s.passOn(p.conn) { // which RESET replaces
		case pumpEnds:
			return false
		case pumpAtRest:
			return true
		}
	}
}

// pumpNext is what the pump is to do after a read.
type pumpNext uint8

const (
	pumpGoesOn pumpNext = iota
	pumpEnds
	pumpAtRest // the connection belongs to whoever wakes it
)

// passOn waits for the backend once, and delivers what it said.
func (s *session) passOn(up *backendConn) pumpNext {
	if d := s.pump.limit.Load(); d > 0 {
		up.sock.SetReadDeadline(time.Now().Add(time.Duration(d)))
	}
	b, k, err := up.receive()
	defer up.free(k)
	if up.rests.state.Load() == restAsked {
		interrupted := errors.Is(err, os.ErrDeadlineExceeded)
		if s.pumpAsked(up, interrupted && len(b) == 0) {
			return pumpAtRest
		}
		if interrupted {
			err = nil
		}
	}
	if len(b) > 0 && s.relay(b) != nil {
		return pumpEnds
	}
	if err != nil {
		s.ownEnded(err)
		return pumpEnds
	}
	s.shedProof()
	return pumpGoesOn
}

func (s *session) upstreamNow() (*backendConn, error) {
	s.pump.mu.Lock()
	defer s.pump.mu.Unlock()
	return s.pump.up, s.pump.upErr
}

// dropUpstream closes the pump's connection, whatever has become of it, and gives back what was read ahead. Whoever waits
// for the connection wakes. The pump calls it last.
func (s *session) dropUpstream() {
	p := &s.pump
	if p.conn != nil {
		p.conn.drop()
		p.conn = nil
	}
	s.queue.notify()
}

// dialOnce is the dial that begins as soon as the client is verified. A failure is not final: nothing has been
// asked for yet.
func (s *session) dialOnce() {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	ctx, cancel := s.dialContext()
	defer cancel()
	up, err := s.server.backend.dial(ctx, s.login())
	if err == nil {
		s.setUpstream(up, nil)
	}
}

// dialContext ends with the session, and once a command has waited for unavailableTimeout.
func (s *session) dialContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go s.cancelAtEnd(ctx, s.pump.want, cancel) // ends with ctx; nobody waits for it
	return ctx, cancel
}

func (s *session) cancelAtEnd(ctx context.Context, want <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-s.done:
		cancel()
		return
	case <-ctx.Done():
		return
	case <-want:
	}
	t := time.NewTimer(s.server.c.unavailableTimeout)
	defer t.Stop()
	select {
	case <-s.done:
	case <-ctx.Done():
	case <-t.C:
	}
	cancel()
}

// connect dials again once a command waits, until unavailableTimeout has passed; the wait for the session's turn to dial does
// not count. false: the session has ended, or is about to be answered so by the reader.
func (s *session) connect() bool {
	wanted, ok := s.awaitWanted()
	if !ok {
		return false
	}
	waited, ok := s.awaitDial()
	if !ok {
		return false
	}
	if waited {
		wanted = time.Now()
	}
	ctx, cancel := s.dialContext()
	defer cancel()
	ctx, cancelDeadline := context.WithDeadline(ctx, wanted.Add(s.server.c.unavailableTimeout))
	defer cancelDeadline()
	var last error
	for {
		up, err := s.server.backend.dial(ctx, s.login())
		if err == nil {
			return s.setUpstream(up, nil)
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if errors.Is(err, errNoPassword) {
			pauseBeforeRetry(ctx)
		}
		if ctx.Err() != nil || errors.Is(err, errBackendAuth) || errors.Is(err, errBackendOpen) || errors.Is(err, errBackendState) {
			s.logUserRefused(last)
			s.setUpstream(nil, last)
			return false
		}
	}
}

// pauseBeforeRetry: a password that is being replaced is there again soon.
func pauseBeforeRetry(ctx context.Context) {
	t := time.NewTimer(5 * firstPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// awaitWanted waits until a command waits for the connection, and says since when. false: the session has ended.
func (s *session) awaitWanted() (since time.Time, ok bool) {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	ok = q.waitLocked(func() bool {
		s.pump.mu.Lock()
		since = s.pump.wanted
		s.pump.mu.Unlock()
		return !since.IsZero()
	})
	return since, ok
}

// setUpstream hands the connection to the reader; false: the session has ended meanwhile. The pump calls it, or whoever is
// about to start the pump.
func (s *session) setUpstream(up *backendConn, err error) bool {
	s.pump.conn = up
	if up != nil {
		up.session = s
		up.opened = s.server.now()
	}
	s.pump.mu.Lock()
	s.pump.up, s.pump.upErr = up, err
	s.pump.dialled = s.pump.dialled || up != nil
	s.pump.mu.Unlock()
	if up != nil {
		if n, late := s.server.backend.belated(up); late {
			s.moveTo(n)
		}
	}
	if s.ended() && up != nil {
		up.close()
		return false
	}
	s.queue.notify()
	return true
}

// endWithBackend ends the session with its own connection, which the backend has closed or which is lost.
func (s *session) endWithBackend(err error) {
	s.pump.mu.Lock()
	a, o := s.pump.awaited, s.pump.outcome
	s.pump.mu.Unlock()
	switch {
	case a == awaitQuit && o != outcomeRefused:
		s.end(closeQuit)
	case errors.Is(err, io.EOF):
		s.end(closeBackend)
	case errors.Is(err, net.ErrClosed):
		s.end(closeClient) // we closed it: a reason is known
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.end(closeClient)
	default:
		s.server.backendStats.errors.add("lost")
		s.end(closeBackendError)
	}
}
