package proxy

import (
	"fmt"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/command"
	"dragontls/proxy/netio"
)

// settings are what Change may change of a Config. They are one value behind one pointer, so that nobody ever sees some of the old ones
// together with some of the new ones, and nothing modifies it. A handshake reads the pointer when it needs a limit, and the reader of a
// session each time that the client has sent something (clientSide.settings).
type settings struct {
	handshakeTimeout, idleTimeout, writeTimeout time.Duration
	eofTimeout                                  time.Duration // see timeouts
	maxConnections, maxPerIdentity              int
	commands                                    *command.Table
	maxBulk                                     int64
	maxArgs                                     int
	sessionBuffer                               int64
	refusePasswords                             bool
	audit                                       AuditLevel
}

// setDefaults sets those fields at zero that Change may change.
func (c *Config) setDefaults() {
	setDefault(&c.HandshakeTimeout, 10*time.Second)
	setDefault(&c.MaxHandshakes, 1000)
	setDefault(&c.MaxConnections, 10000)
	setDefault(&c.MaxBulk, 512<<20)
	setDefault(&c.MaxArgs, 65536)
	setDefault(&c.SessionBuffer, 4<<20)
}

// newSettings returns the settings of a Config with its defaults. table denies what it names.
func newSettings(c *Config, table *command.Table, eofTimeout time.Duration) *settings {
	setDefault(&eofTimeout, c.WriteTimeout+30*time.Second)
	return &settings{
		handshakeTimeout: c.HandshakeTimeout, idleTimeout: c.IdleTimeout, writeTimeout: c.WriteTimeout, eofTimeout: eofTimeout,
		maxConnections: c.MaxConnections, maxPerIdentity: c.MaxPerIdentity,
		commands: table, maxBulk: c.MaxBulk, maxArgs: c.MaxArgs, sessionBuffer: c.SessionBuffer,
		refusePasswords: c.Backend.RefusePasswords, audit: c.Audit.Level,
	}
}

// forgetSettings sets what Change may change to zero, in the Config that a Server keeps: whoever reads it there by mistake does not get
// what was once right.
func (c *Config) forgetSettings() {
	c.HandshakeTimeout, c.IdleTimeout, c.WriteTimeout, c.eofTimeout = 0, 0, 0, 0
	c.MaxHandshakes, c.MaxConnections, c.MaxPerIdentity = 0, 0, 0
	c.DenyCommands, c.MaxBulk, c.MaxArgs, c.SessionBuffer, c.BufferLimit = nil, 0, 0, 0, 0
	c.Backend.RefusePasswords, c.Backend.ConnectTimeout, c.Backend.MaxConnections = false, 0, 0
	c.Audit.Level = AuditOff
}

// backendSettings are those of c for the Backend.
func backendSettings(c *Config) backend.Settings {
	return backend.Settings{ConnectTimeout: c.Backend.ConnectTimeout, WriteTimeout: c.WriteTimeout, MaxConnections: c.Backend.MaxConnections}
}

// Change makes the Server follow c in what may change while it serves: HandshakeTimeout, MaxHandshakes, MaxConnections, MaxPerIdentity,
// IdleTimeout, WriteTimeout, DenyCommands, MaxBulk, MaxArgs, SessionBuffer, BufferLimit, Audit.Level and, of Backend, RefusePasswords,
// ConnectTimeout and MaxConnections. It ignores the rest of c. After an error nothing has changed. No session is closed for a lower
// limit, but for a lower BufferLimit, which is exceeded as any other. Change may be called at any time, by one goroutine at a time.
func (s *Server) Change(c Config) error {
	c.setDefaults()
	table, err := s.settings.Load().commands.Deny(c.DenyCommands)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	now := newSettings(&c, table, s.eofOverride)
	before := s.settings.Swap(now)
	s.buffers.SetLimit(c.BufferLimit)
	s.pending.setMax(c.MaxHandshakes)
	s.backend.Change(backendSettings(&c))
	s.setLimits(&c)
	s.placeWaiting()
	if now.writeTimeout != before.writeTimeout {
		s.retuneListener()
	}
	return nil
}

// retuneListener gives the options of new connections that depend on WriteTimeout to the listener from which they inherit them.
func (s *Server) retuneListener() {
	s.mu.Lock()
	l, _ := s.listener.(*Listener)
	s.mu.Unlock()
	if l != nil && l.tuned {
		netio.TuneListener(l.raw, s.c.KeepAlive, s.settings.Load().writeTimeout)
	}
}

// eofTimeout is settings.eofTimeout now.
func (s *Server) eofTimeout() time.Duration { return s.settings.Load().eofTimeout }

// follow takes over settings that have changed since the client last sent something. The session's reader calls it, between a read and
// the commands that it brought. What was framed before keeps its verdict.
func (s *session) follow(now *settings) {
	c := &s.client
	c.settings = now
	c.cmds.Limits.MaxBulk, c.cmds.Limits.MaxArgs = now.maxBulk, now.maxArgs
	s.queue.mu.Lock()
	s.queue.out.most = now.sessionBuffer
	s.queue.mu.Unlock()
}
