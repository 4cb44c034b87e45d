package proxy

import (
	"context"
	"errors"
	"time"

	"dragontls/proxy/resp"
)

const (
	probeInterval = time.Second
	// probeFresh: the backend counts as up for this long after an answer.
	probeFresh = 10 * time.Second
)

// Readiness says whether the backend has answered a PING in the last 10 s, and would take the sessions' connections.
type Readiness struct {
	OK     bool
	Reason string // why not, in a word: a reason of BackendErrors, or "starting"
	Detail string // why not; it may name addresses
}

// BackendReady may be called at any time.
func (s *Server) BackendReady() Readiness {
	if s.fresh() {
		return Readiness{OK: true}
	}
	if r := s.backendStats.unready.Load(); r != nil {
		return *r
	}
	return Readiness{Reason: "starting", Detail: "the backend has not answered yet"}
}

func (s *Server) fresh() bool {
	at := s.backendStats.answered.Load()
	return at != 0 && s.now()-at < int64(probeFresh)
}

// probe asks the backend once a second, over a connection of its own.
func (s *Server) probe() {
	defer s.running.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	t := time.NewTicker(probeInterval)
	defer t.Stop()
	var c *backendConn
	last := "starting"
	for {
		var err error
		c, err = s.probeOnce(ctx, c)
		if ctx.Err() == nil {
			last = s.noteProbe(err, last)
		}
		select {
		case <-t.C:
		case <-s.done:
			if c != nil {
				c.drop()
			}
			return
		}
	}
}

// noteProbe logs a change once.
func (s *Server) noteProbe(err error, last string) string {
	st := &s.backendStats
	if err == nil {
		st.answered.Store(s.now())
		st.up.Store(true)
		if last != "" {
			s.log.Info().Msg("backend answers")
		}
		return ""
	}
	reason := backendReason(err)
	st.unready.Store(&Readiness{Reason: reason, Detail: err.Error()})
	if !s.fresh() || errors.Is(err, errBackendAuth) || errors.Is(err, errBackendOpen) {
		st.up.Store(false)
	}
	if errors.Is(err, errBackendAuth) || errors.Is(err, errBackendOpen) {
		st.answered.Store(0)
	}
	if reason != last {
		s.log.Warn().Err(err).Str("reason", reason).Msg("backend does not answer")
	}
	return reason
}

// probeOnce sends PING. Any reply counts: NOAUTH, LOADING and NOPERM come from a backend that is up. Where clients have
// users of their own, and the prober has none, it must be NOAUTH.
func (s *Server) probeOnce(ctx context.Context, c *backendConn) (*backendConn, error) {
	l := s.backend.proberLogin()
	if c == nil {
		var err error
		if c, err = s.backend.connect(ctx, l); err != nil {
			s.backend.outcome(l.blame(err))
			return nil, err
		}
		s.backend.outcome(nil)
	}
	c.sock.SetReadDeadline(time.Now().Add(probeFresh))
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	if _, err := c.conn.Write(resp.AppendCommand(nil, "PING")); err != nil {
		c.drop()
		return nil, err
	}
	judge := func(*resp.Replies) error { return nil }
	if l.mapped && !c.authenticated() {
		judge = isNoAuth
	}
	if err := c.expect([]func(*resp.Replies) error{judge}); err != nil {
		c.drop()
		return nil, err
	}
	return c, nil
}
