package proxy

import (
	"context"
	"crypto/tls"
	"runtime/debug"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/lane"
)

// BackendConfig says how to reach the store. Its functions are called at every dial.
type BackendConfig struct {
	// Target is "tcp" and host:port, or "unix" and a path.
	Target func() (network, address string, err error)
	TLS    func() *tls.Config // nil, or nil from it: in clear
	// Credentials are what the proxy authenticates with; nil, or no password: clients authenticate themselves.
	Credentials func() (user, password string, err error)
	// Mapped reports whether sessions act as users of their own (Peer.User). Such a session is served only by a backend that
	// answers NOAUTH to a connection that did not authenticate, so BackendReady wants the same; Credentials serve it
	// alone then. nil: they do not.
	Mapped func() bool
	// RefusePasswords refuses every AUTH, and HELLO with AUTH, of a client for which dragontls authenticates. Otherwise the
	// user and password that dragontls uses for it are answered as the backend would.
	RefusePasswords bool
	ConnectTimeout  time.Duration // for one dial, with authentication
	// SetName: a connection of a client with a certificate carries its name in CLIENT LIST, until the client sets one.
	SetName        bool
	MaxConnections int // 0: no limit
	// Shared: sessions share lanes, see package lane. Without it each session has a connection of its own.
	Shared bool
	Lanes  int // most lanes of one key; 0: grows with load from 1 to max(4, GOMAXPROCS)
}

// backendConfig is c.Backend for the Backend: sessions that share connections leave an address that the backend's name
// does not lead to any more.
func (s *Server) backendConfig() backend.Config {
	b := &s.c.Backend
	c := backend.Config{
		Target: b.Target, TLS: b.TLS, Credentials: b.Credentials, Mapped: b.Mapped,
		Settings: backendSettings(&s.c), PartTimeout: s.c.partTimeout,
		KeepAlive: s.c.KeepAlive, Buffers: s.buffers,
		ResolveInterval: s.c.resolveInterval, Lookup: s.c.lookup, Log: s.log,
		Limits:      s.limits.backendLimits(),
		Now:         s.now,
		SessionPace: s.c.sessionPace, IdentityPace: s.c.identityPace, LanePace: s.c.lanePace,
	}
	if b.Shared {
		c.CloseIdle, c.Moved, c.LifeOver = s.closeIdlest, s.moved, s.endBelievers
	}
	return c
}

// followBackend probes the backend and follows its address.
func (s *Server) followBackend() {
	defer s.running.Done()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go backend.CancelWith(ctx, s.done, cancel) // ends with ctx; nobody waits for it
	s.backend.Run(ctx)
}

// BackendReady may be called at any time.
func (s *Server) BackendReady() backend.Readiness { return s.backend.Ready() }

// laneConfig is what lanes need of the Server.
func (s *Server) laneConfig() lane.Config {
	return lane.Config{
		Lanes: s.c.Backend.Lanes, Backend: s.backend, Dial: s.backend.Dial, Buffers: s.buffers, CloseAccount: s.closeAccount,
		Now: s.now, Done: s.done, Running: &s.running, Panicked: s.lanePanic, Log: s.log,
		Timeouts: lane.Timeouts{
			Unavailable: s.c.unavailableTimeout, Stuck: s.c.stuckTimeout, LateAfter: s.c.lateAfter, SlowCommand: s.c.slowCommand,
			Idle: s.c.laneIdle, Stay: s.c.laneStay, Unproven: s.c.unprovenLane, Retry: s.c.laneRetry, BusyRetry: s.c.laneBusyRetry,
			Held: s.c.laneHeld, Silent: s.c.laneSilent, Ask: s.c.askInterval,
		},
	}
}

// lanePanic counts and logs a panic in a goroutine that belongs to no session.
func (s *Server) lanePanic(v any) {
	s.panics.Add(1)
	s.log.Error().Interface("panic", v).Bytes("stack", debug.Stack()).Msg("panic in a lane")
}
