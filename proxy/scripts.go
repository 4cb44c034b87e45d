package proxy

import (
	"context"
	"errors"

	"dragontls/proxy/backend"
)

// A client that has run a script, or has asked which ones are loaded, believes from then on that the backend knows it: it
// sends EVALSHA inside transactions, of which half would run where the backend has forgotten the script. So its session ends
// when the backend is lost, as a direct connection would. A session that has no connection at that moment learns of it by a
// backend.Life: sharing.life was there when the session last began to believe.

// believes reports whether the client may believe that the backend knows a script or a function.
func (s *session) believes() bool { return s.life.Load() != nil }

// dialOwn dials an own connection. If the client believes in scripts, the connection must lead to the process of its life; if that is over,
// the session ends, and dialOwn returns an error. bare means that the connection does without the session's database, see sendBare.
func (s *session) dialOwn(ctx context.Context, bare bool) (*backend.Conn, error) {
	l := s.login()
	l.Bare, l.WhileLoading, l.AtOnce = bare, s.pump.whileLoading, s.failsAtOnce()
	up, err := s.server.backend.Dial(ctx, l)
	life := s.life.Load()
	if err != nil || life == nil {
		return up, err
	}
	err = life.Confirm(ctx, up)
	if err == nil || bare && errors.Is(err, backend.ErrScript) { // it is for one command, which may end the script that is in the way
		return up, nil
	}
	up.Drop()
	if errors.Is(err, backend.ErrLifeOver) {
		s.end(closeScripts)
	}
	return nil, err
}

// believeScripts runs before a batch with scripts is sent over up, the own connection. It notes in which life of the backend that is, and
// returns the connection for the batch: another one unless up leads to the process of that life. Where the life cannot be known, the
// session keeps its own connection and ends with it. It returns an error if there is no connection, or the session has ended.
func (s *session) believeScripts(up *ownConn) (*ownConn, error) {
	if s.keepsOwn() || up.Bare { // what a bare one carries does not load scripts
		return up, nil
	}
	life := s.life.Load()
	if life == nil || life.Over() {
		if !s.beginLife() {
			return nil, errEnded
		}
		life = s.life.Load()
	}
	switch {
	case s.keepsOwn(), up.Confirmed(life) && !s.ownIsDirty():
		return up, nil
	case !s.giveOwnBack():
		s.keepOwn()
		return up, nil
	}
	return s.openOwn()
}

// beginLife waits until it is known in which life the backend is, for a session whose client begins to believe in scripts. See
// believeScripts.
func (s *session) beginLife() bool {
	ctx, cancel := context.WithTimeout(context.Background(), s.server.c.unavailableTimeout)
	defer cancel()
	go backend.CancelWith(ctx, s.done, cancel) // ends with ctx; nobody waits for it
	for {
		last := s.life.Load()
		if last != nil && !last.Over() {
			return true
		}
		if last != nil {
			s.end(closeScripts)
			return false
		}
		now, err := s.server.backend.Life(ctx)
		if s.ended() {
			return false
		}
		if err != nil {
			s.keepOwn()
			return true
		}
		s.life.Store(now)
	}
}

// giveOwnBack closes the own connection, which the session's reader has opened for its batch, once nothing is owed, unless something else
// depends on it. It reports whether it has closed it. The caller then opens another one.
func (s *session) giveOwnBack() bool {
	if s.middle != nil || s.client.tx != txNone || s.sticky() || s.uncounting() || !s.park(func() bool { return s.queue.owed == 0 }) {
		return false
	}
	s.pump.mu.Lock()
	s.pump.inUse = false
	s.pump.mu.Unlock()
	if s.closeOwn(s.server.now()) {
		return true
	}
	s.pump.mu.Lock()
	s.pump.inUse = true
	s.pump.mu.Unlock()
	return false
}

// endBelievers ends the sessions whose clients believe in scripts of a life that is over. A session that keeps its own connection for
// life ends with that.
func (s *Server) endBelievers(over *backend.Life) {
	s.each(func(c *session) {
		if c.life.Load() == over && !c.keepsOwn() {
			c.end(closeScripts)
		}
	})
}
