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

// dialOwn dials an own connection. If the client believes in scripts, and the backend was lost since it began to, the session
// ends, and dialOwn returns an error. bare means that the connection does without the session's database, see sendBare.
func (s *session) dialOwn(ctx context.Context, bare bool) (*backend.Conn, error) {
	l := s.login()
	l.Bare, l.WhileLoading = bare, s.pump.whileLoading
	up, err := s.server.backend.Dial(ctx, l)
	life := s.life.Load()
	if err != nil || life == nil {
		return up, err
	}
	if err := life.Confirm(ctx); err != nil {
		up.Drop()
		if errors.Is(err, backend.ErrLifeOver) {
			s.end(closeScripts)
		}
		return nil, err
	}
	return up, nil
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
