package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/command"
	"dragontls/proxy/lane"
	"dragontls/proxy/limit"
	"dragontls/proxy/netio"
)

// Config of a Server. TLS and Backend are required; other fields at zero take the value named.
type Config struct {
	TLS *tls.Config // its GetConfigForClient decides, per handshake
	// Recheck reports whether the client of a session is trusted now, and which identity it has: without it there are no Peers, and
	// so no users, rules, limits per identity and names. It is called, by many goroutines at
	// once, when a session begins, when its certificate is about to end, and by Server.Recheck. Its errors may have a
	// method Reason that gives a one-word reason. Without Recheck, every client that has finished the handshake stays.
	Recheck          func(*tls.ConnectionState) (Peer, error)
	HandshakeTimeout time.Duration // TCP accept to finished handshake; 10 s
	// ProxyFrom are the networks of load balancers: each of their connections must begin with a header of the PROXY protocol.
	ProxyFrom      []netip.Prefix
	MaxHandshakes  int           // sockets without a finished handshake; 1000
	MaxConnections int           // sessions; 10000
	MaxPerIdentity int           // sessions of one Peer.Identity; a quarter as many wait a second for a place, see maxAside; 0: as many as MaxConnections
	IdleTimeout    time.Duration // 0: never
	WriteTimeout   time.Duration // a client that accepts no byte for this long is closed; 0: never
	KeepAlive      time.Duration // both sides; 0: off
	Backend        BackendConfig
	DenyCommands   []string // NAME or NAME|SUBCOMMAND
	MaxBulk        int64    // bytes; 512 MiB
	MaxArgs        int      // 65536
	SessionBuffer  int64    // Backend.Shared: reply bytes held for one client before its backend is read no further; 4 MiB
	// BufferLimit is how many bytes clients may make the proxy hold, sessions and their buffers together; one identity
	// holds at most a quarter of it in buffers. MaxHandshakes times HandshakeMemory come on top. 0 means no limit. See memory.go.
	BufferLimit int64
	Audit       Audit
	Notice      func(Notice) // called by many goroutines at once; it must not wait for anything. nil: nobody is told
	Log         zerolog.Logger

	timeouts
	clock  func() clock.Instant                            // see Server.now
	lookup func(context.Context, string) ([]string, error) // of the backend's name; net.DefaultResolver.LookupHost
	// The paces of new backend connections, see backend.Config.
	sessionPace, identityPace, lanePace backend.Pace
}

// Server is the listener, its sessions and the backend's prober. Safe for concurrent use.
type Server struct {
	c           Config // without what Change may change
	tls         *tls.Config
	log         zerolog.Logger
	buffers     *netio.Buffers
	backend     *backend.Backend
	settings    atomic.Pointer[settings]
	eofOverride time.Duration // timeouts.eofTimeout as it was given; 0: it follows WriteTimeout
	audit       *auditor
	pending     *places
	rests       *netio.Watcher[sleeper] // nil: no session rests

	serverEnd
	connections
	certificateEnds
	counters

	mu sync.Mutex
	// guarded by mu
	sessions   map[*session]struct{}
	identities map[[32]byte]*identity // those with a session
	listener   net.Listener
	draining   bool
}

// serverEnd is how a server ends.
type serverEnd struct {
	done     chan struct{} // closed by Close
	closing  sync.Once
	flushing sync.Once
	running  sync.WaitGroup // handshakes, sessions, prober, sweeper
}

// connections are those to the backend, and what decides about new ones.
type connections struct {
	lanes  *lane.Sets
	owners registry[*session] // those that have a connection of their own, or dial one
	proofs proofs
}

// certificateEnds is what the server knows of the ends of its sessions' certificates.
type certificateEnds struct {
	firstEnd moment     // no session's certificate ends before
	judging  sync.Mutex // taken by each goroutine that judges live sessions, so that the last verdict is the newest
}

// counters are what Stats reads.
type counters struct {
	stripes        [stripes]stripe
	lastSession    atomic.Uint64   // the id of the newest session
	rulesWouldDeny []atomic.Uint64 // by Command.ID
	closed         counts
	handshakes     handshakeCounts
	acceptErrors   atomic.Uint64
	passwordsRight atomic.Uint64 // that clients have sent, see checkPassword
	passwordsWrong atomic.Uint64
	passwordLines  limit.Lines[netio.QuotaKey] // about them
	userLines      limit.Lines[netio.QuotaKey] // about clients whose own users get no backend connection
	unaskedLines   limit.Lines[netio.QuotaKey] // about replies that nobody asked for, on own connections
	limits         limits
	refusals       refusals
	denials        denials
	guesses        *guesses
	panics         atomic.Uint64
}

// New checks the configuration; nothing runs before Serve.
func New(c Config) (*Server, error) {
	if c.TLS == nil {
		return nil, errors.New("proxy: no TLS configuration")
	}
	c.setDefaults()
	c.timeouts.setDefaults()
	table, err := command.NewTable(c.DenyCommands)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	s := &Server{
		c: c, log: c.Log, eofOverride: c.eofTimeout,
		buffers:  netio.NewBuffers(c.BufferLimit),
		pending:  newPlaces(c.MaxHandshakes, 2*runtime.GOMAXPROCS(0)),
		sessions: make(map[*session]struct{}), identities: make(map[[32]byte]*identity),
	}
	s.settings.Store(newSettings(&c, table, c.eofTimeout))
	if s.c.clock == nil {
		s.c.clock = clock.Start()
	}
	s.pending.door = door{most: c.doorTimeout, left: c.doorTimeout}
	s.limits = s.newLimits()
	s.setLimits(&s.c)
	s.pending.limit = s.limits[limitHandshakes]
	s.guesses = newGuesses(c.forgetGuessAfter)
	s.done = make(chan struct{})
	s.firstEnd.Store(math.MaxInt64)
	s.audit = newAuditor(c.Audit, time.Now())
	s.tls = c.TLS.Clone()
	s.tls.GetConfigForClient = clientHello(c.TLS.GetConfigForClient)
	s.backend = backend.New(s.backendConfig())
	s.lanes = lane.New(s.laneConfig())
	s.rulesWouldDeny = make([]atomic.Uint64, len(table.Names))
	for i := range s.stripes {
		t := &s.stripes[i]
		t.own, t.lane, t.local = make(pathCounters, len(table.Names)), make(pathCounters, len(table.Names)), make(pathCounters, len(table.Names))
	}
	s.c.forgetSettings()
	return s, nil
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// now reads the monotonic clock that begins with New.
func (s *Server) now() clock.Instant { return s.c.clock() }

// Serve accepts on ln until Close or Drain; then it returns nil.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listener = ln
	s.audit.start()
	s.running.Add(1)
	s.running.Add(1)
	if s.rests = netio.NewWatcher[sleeper](); s.rests != nil {
		go s.rests.Watch(s.wake) // ends with Close
	}
	go s.sweep() // stopped by done, Close waits for it
	s.running.Add(1)
	go s.relieve()       // stopped by done, Close waits for it
	go s.followBackend() // stopped by done, Close waits for it
	if s.c.Backend.Shared {
		s.running.Add(1)
		go s.watchLanes() // stopped by done, Close waits for it
	}
	s.mu.Unlock()
	defer s.listeningEnded()
	l, _ := ln.(*Listener)
	tuned := l != nil && l.tuned
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			pause = min(time.Second, max(5*time.Millisecond, 2*pause)) // without it the loop would take a core
			s.acceptFailed(err, pause)
			select {
			case <-time.After(pause):
				continue
			case <-s.done:
				return nil
			}
		}
		pause = 0
		if !tuned {
			netio.Tune(conn, s.c.KeepAlive, s.settings.Load().writeTimeout)
		}
		s.accept(conn)
	}
}

// acceptFailed counts and logs that a connection could not be accepted. That is mostly for want of descriptors.
func (s *Server) acceptFailed(err error, pause time.Duration) {
	s.acceptErrors.Add(1)
	if netio.IsOutOfDescriptors(err) {
		s.limits[limitDescriptors].Reached(func(e *zerolog.Event) { e.Err(err) })
		return
	}
	s.log.Warn().Err(err).Dur("pause", pause).Msg("accept failed")
}

// accept only sorts: whatever can wait for a client happens in the client's own goroutine. While there are as many sessions as there
// may be, a newcomer takes a place for its handshake only if one is free: the handshake lets its client read why it is refused.
func (s *Server) accept(conn net.Conn) {
	now := s.settings.Load()
	s.mu.Lock()
	full, draining := len(s.sessions) >= now.maxConnections, s.draining && s.listener == nil
	if !draining {
		s.running.Add(1)
	}
	s.mu.Unlock()
	if draining {
		conn.Close()
		return
	}
	sock, err := netio.NewSocket(conn, s.buffers.NewAccount(), now.writeTimeout)
	if err != nil {
		s.handshakes.add(HandshakeKey{Reason: handshakeOther})
		conn.Close()
		s.running.Done()
		return
	}
	h := &handshake{server: s, sock: sock, from: originOf(conn.RemoteAddr())}
	if reason := s.enter(h, full); reason != "" {
		s.handshakes.add(HandshakeKey{Reason: reason})
		h.notify(reason, false, nil, &tls.ConnectionState{})
		conn.Close()
		s.running.Done()
		return
	}
	if s.isDone() {
		sock.Abort() // Close may have looked before h was there
	}
	go s.runHandshake(h) // ends with the handshake or its deadline, Close waits for it
}

// enter gives h a place for its handshake, or returns why it gets none. full means that no session is free.
func (s *Server) enter(h *handshake, full bool) (refused string) {
	if full {
		if s.pending.addIfFree(h) {
			return ""
		}
		s.limits[limitConnections].Reached(h.describe)
		return handshakeFull
	}
	loser, ok := s.pending.enter(h, s.done)
	if loser != nil {
		loser.sock.Abort()
	}
	if !ok {
		return handshakePlaces
	}
	return ""
}

func (s *Server) runHandshake(h *handshake) {
	defer s.running.Done()
	defer func() {
		if v := recover(); v != nil {
			s.panics.Add(1)
			s.pending.remove(h)
			h.sock.Abort()
			h.sock.Release()
			s.log.Error().Interface("panic", v).Msg("panic in a handshake")
		}
	}()
	h.run()
}

func (s *Server) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// open is the number of sessions.
func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

func (s *Server) each(f func(*session)) {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for n := range s.sessions {
		all = append(all, n)
	}
	s.mu.Unlock()
	for _, n := range all {
		f(n)
	}
}

// Close ends everything at once and waits for it, and for a second at most for the audit log.
func (s *Server) Close() {
	s.stopListening(0)
	s.closing.Do(func() { close(s.done) })
	for _, h := range s.pending.all() {
		h.sock.Abort()
	}
	s.each(func(n *session) { n.kill(closeShutdown) })
	s.lanes.Close()
	s.running.Wait()
	s.backend.EndPartings()
	s.mu.Lock()
	rests := s.rests
	s.mu.Unlock()
	if rests != nil {
		rests.Close()
	}
	s.flushing.Do(s.audit.close)
}

// stopListening closes the listener. With patience above 0 a Listener hands over first: Serve goes on accepting until its
// accept queue is empty.
func (s *Server) stopListening(patience time.Duration) {
	s.mu.Lock()
	s.draining = true
	ln := s.listener
	l, handsOver := ln.(*Listener)
	handsOver = handsOver && patience > 0
	if !handsOver {
		s.listener = nil
	}
	s.mu.Unlock()
	switch {
	case handsOver:
		l.HandOver(patience)
	case ln != nil:
		ln.Close()
	}
}

func (s *Server) listeningEnded() {
	s.mu.Lock()
	s.listener = nil
	s.mu.Unlock()
}

// isListening reports whether connections may still arrive.
func (s *Server) isListening() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener != nil
}
