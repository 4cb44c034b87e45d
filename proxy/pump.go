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

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/resp"
)

// pump is the state of a session's pump, the goroutine that reads its own connection. The fields belong to that goroutine,
// except limit, which any goroutine may use, and those that mu guards.
type pump struct {
	conn    *ownConn // what the pump reads until it ends; up is the same connection until it is given up
	replies resp.Replies
	held    []byte          // a reply that is passed on only once it is whole, see withhold
	done    chan struct{}   // closed when the pump has ended
	limit   atomic.Int64    // how long the backend may be silent when the session is about to end, in nanoseconds; 0: no limit
	turn    writeTurn       // held while a frame is written in part
	tokens  *backend.Bucket // the tokens for own connections after the first, see awaitDial; nil while it is full

	mu sync.Mutex
	// guarded by mu
	dialled bool          // the session has an own connection, or has had one
	up      *ownConn      // the own connection, or nil
	upErr   error         // why there is none; nil while it is being dialled
	wanted  time.Time     // since when a command waits for the connection, or zero
	want    chan struct{} // closed when wanted is set
	bare    bool          // the command that waits for the connection needs no database, see sendBare
	awaited awaited       // the reply for which the session's reader waits, see await
	outcome outcome       // what that reply was

	inUse bool          // the session's reader uses the connection: nobody may close it for being idle
	used  clock.Instant // when the reader last stopped using it, see Server.now
	dirty bool          // it is to be closed once it is idle: an error reply has left its state in doubt, or it is from before a move

	whileLoading backend.WhileLoading // of the pump, not guarded: what its dials do while the backend is loading
}

// runPump is the pump goroutine: it dials the own connection if there is none, and passes the backend's replies on as they
// come, each in its place. It ends when the connection rests or has ended, or when the session ends; the session's reader
// waits for that.
func (s *session) runPump() {
	s.server.owners.add(s)
	if s.pumpOn() {
		return
	}
	s.dropUpstream()
	s.server.owners.remove(s)
	close(s.pump.done)
}

// pumpOn dials the connection if there is none, and reads it until it rests or ends. It returns true if the connection
// rests, and false if it has ended or could not be opened.
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
		switch s.passOn(p.conn) { // a RESET may have replaced p.conn
		case pumpEnds:
			return false
		case pumpAtRest:
			return true
		}
	}
}

// pumpParts ends the pump of a connection that the session has given up. If half a push was passed on, nobody can write to the client any
// more, so the session ends.
func (s *session) pumpParts() pumpNext {
	if s.pump.replies.Open() {
		s.end(closeBackendError)
	}
	return pumpEnds
}

// quitting reports whether the backend has been asked to close the connection, and has not refused that. The caller must hold
// mu.
func (p *pump) quitting() bool {
	return (p.awaited == awaitQuit || p.awaited == awaitExec) && (p.outcome == outcomeNone || p.outcome == outcomeDone)
}

// upstreamNow returns the own connection, or nil and maybe the reason why there is none.
func (s *session) upstreamNow() (*ownConn, error) {
	s.pump.mu.Lock()
	defer s.pump.mu.Unlock()
	return s.pump.up, s.pump.upErr
}

// dropUpstream closes the pump's connection, if it has one, and gives back what was read ahead. It wakes the goroutines that
// wait for the connection. The pump calls it when it ends.
func (s *session) dropUpstream() {
	p := &s.pump
	if p.conn != nil {
		p.conn.Drop()
		p.conn = nil
	}
	s.queue.notify()
}

// dialOnce dials the own connection of a session that cannot ride lanes, as soon as its client is verified. A failure is not
// final: no command waits for the connection yet, and connect dials again when one does.
func (s *session) dialOnce() {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	ctx, cancel := s.dialContext()
	defer cancel()
	l := s.login()
	l.AtOnce = s.failsAtOnce()
	up, err := s.server.backend.Dial(ctx, l)
	if err == nil {
		s.setUpstream(up, nil)
	}
}

// dialContext returns a context that ends when the session ends, or when a command has waited for unavailableTimeout.
func (s *session) dialContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go s.cancelAtEnd(ctx, s.pump.want, cancel) // ends with ctx; nobody waits for it
	return ctx, cancel
}

// cancelAtEnd cancels a context of dialContext in time, and ends with it.
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

// connect waits until a command wants the own connection, and then dials until it succeeds or unavailableTimeout has
// passed. The wait for a token (awaitDial) does not count. It returns false if the session has ended, or if the dial has
// failed for good: pump.upErr then tells the session's reader why, which answers the client.
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
		bare := s.wantsBare() && errors.Is(last, backend.ErrScript)
		up, err := s.dialOwn(ctx, bare)
		if err == nil {
			return s.setUpstream(up, nil)
		}
		if s.ended() {
			return false
		}
		if errors.Is(err, backend.ErrScript) && s.wantsBare() && !bare {
			last = err
			continue
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if errors.Is(err, backend.ErrNoPassword) {
			pauseBeforeRetry(ctx)
		}
		if ctx.Err() != nil || s.isFinal(err) {
			s.logUserRefused(last)
			s.setUpstream(nil, last)
			return false
		}
	}
}

// isFinal reports whether it is of no use to dial again for the command that waits.
func (s *session) isFinal(err error) bool {
	return errors.Is(err, backend.ErrAuth) || errors.Is(err, backend.ErrOpen) || errors.Is(err, backend.ErrState) || backend.IsUp(err) ||
		backend.IsRefused(err) && s.failsAtOnce() ||
		backend.IsLoading(err) && s.pump.whileLoading == backend.LoadingRefused
}

// failsAtOnce reports whether a refused dial is final, as it would be for a client that connects directly: the session owns its
// connection from birth, and its client has just connected, since it has had no reply yet. Client libraries do not expect a new connection
// to work after a wait: kombu discards the connections that ended with the backend only if it cannot open a new one.
func (s *session) failsAtOnce() bool { return s.ownsFromBirth() && !s.everAnswered() }

// passwordPause is how long a dial waits before it asks again for a password that could not be read.
const passwordPause = 100 * time.Millisecond

// pauseBeforeRetry waits a little after the password could not be read. If somebody is just replacing it, it will be there
// soon.
func pauseBeforeRetry(ctx context.Context) {
	t := time.NewTimer(passwordPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// awaitWanted waits until a command waits for the own connection, and returns since when it does. ok is false if the
// session has ended.
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

// setUpstream makes c the own connection, or tells the session's reader by err why there is none. It returns false if the
// session has ended meanwhile, after closing c. The pump calls it, or the goroutine that is about to start the pump.
func (s *session) setUpstream(c *backend.Conn, err error) bool {
	var up *ownConn
	if c != nil {
		up = &ownConn{Conn: c, session: s, opened: s.server.now()}
		s.pump.replies.Sought = backend.AnswersAsReplica
	}
	s.pump.conn = up
	s.pump.mu.Lock()
	s.pump.up, s.pump.upErr = up, err
	s.pump.dialled = s.pump.dialled || up != nil
	s.pump.mu.Unlock()
	if up != nil {
		if n, late := s.server.backend.DialledBeforeMove(c); late {
			s.moveTo(n)
		}
	}
	if s.ended() && up != nil {
		up.Close() // the session's reader may be writing to it
		return false
	}
	s.queue.notify()
	return true
}

// endWithBackend ends the session after its own connection has ended with err, for the reason that fits err.
func (s *session) endWithBackend(err error) {
	s.pump.mu.Lock()
	quit, left := s.pump.quitting(), s.pump.awaited == awaitEnd
	s.pump.mu.Unlock()
	switch {
	case quit:
		s.end(closeQuit)
	case left:
		s.end(closeClient)
	case errors.Is(err, io.EOF):
		s.end(closeBackend)
	case errors.Is(err, net.ErrClosed):
		s.end(closeClient) // the proxy has closed it, so the session has already ended for another reason
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.end(closeClient)
	default:
		s.server.backend.Count("lost")
		s.end(closeBackendError)
	}
}

// upstream tells the pump that a command waits for the own connection, and returns the connection, or the error of its
// dial. It waits at most unavailableTimeout, not counting the wait for a token (awaitDial).
func (s *session) upstream() (*ownConn, error) {
	p := &s.pump
	p.mu.Lock()
	up, err := p.up, p.upErr
	if up == nil && err == nil && p.wanted.IsZero() {
		p.wanted = time.Now()
		close(p.want)
	}
	p.mu.Unlock()
	if up != nil || err != nil {
		return up, err
	}
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	q.notifyLocked()
	if !q.waitLocked(func() bool {
		up, err = s.upstreamNow()
		return up != nil || err != nil
	}) {
		return nil, errEnded
	}
	return up, err
}
