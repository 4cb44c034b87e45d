package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"

	"dragontls/certs"
	"dragontls/config"
	"dragontls/proxy"
	"dragontls/proxy/admin"
)

// Exit codes of serve.
const (
	exitOK     = 0
	exitFailed = 1 // or the drain timed out
	exitConfig = 2
)

// serve runs the proxy with what env and, if it is not empty, the file of that name say.
func serve(env []string, envFile string, stderr io.Writer) int {
	from := source{env, envFile}
	out := openLog(stderr, from.value("LOG_FORMAT"))
	defer out.close()
	c, err := configure(from)
	if err != nil {
		return configFault(out, err)
	}
	s, code := start(c, from, out)
	if s == nil {
		return code
	}
	return s.run(nil)
}

// service is a running proxy: its listeners, its certificates and the goroutines that keep them.
type service struct {
	c        config.Config                 // as it was at the start; see current
	followed atomic.Pointer[config.Config] // what is in use since the settings were read again; nil: they were not
	from     source
	out      *logOutput
	log      zerolog.Logger
	store    *certs.Store
	backend  *certs.Client // nil: the backend is reached in clear
	server   *proxy.Server
	listener *proxy.Listener
	admin    *admin.Server // nil: disabled
	started  time.Time
	judged   atomic.Uint64 // the trust generation by which live sessions were judged
	alerts   *admin.Alerts
	draining atomic.Bool
	watching sync.WaitGroup
	watched  watched
	signals  chan os.Signal
	// drainAsked holds one element after an operator has asked for a drain. It is not a signal among the others: in a full queue the
	// request would be lost, or would take the place of a SIGTERM.
	drainAsked chan struct{}

	notifying chan struct{} // holds one element while a message to the service manager is on its way

	reloading     sync.Mutex // held by the goroutine that reads the files again
	settingsReads settingsReads
	expiryWarning chan time.Duration // holds the newest EXPIRY_WARNING that nobody has taken; see applySettings
}

// start opens everything, or says on out what is wrong and returns nil and the exit code.
func start(c config.Config, from source, out *logOutput) (*service, int) {
	s := &service{
		c: c, from: from, started: time.Now(), out: out, log: out.logger(c), signals: make(chan os.Signal, 4),
		drainAsked: make(chan struct{}, 1), notifying: make(chan struct{}, 1), expiryWarning: make(chan time.Duration, 1),
	}
	s.settingsReads.lastGood = s.started
	out.capture(s.log)
	if err := s.openCertificates(); err != nil {
		return nil, configFault(out, err)
	}
	if err := s.openProxy(); err != nil {
		return nil, configFault(out, err)
	}
	if err := s.listen(); err != nil {
		out.fatal("cannot listen", err)
		return nil, exitFailed
	}
	s.logNotes(c.Notes)
	s.logFindings()
	limitMemory(&c)
	return s, exitOK
}

func (s *service) logNotes(notes []config.Note) {
	for _, n := range notes {
		level := min(levelOf(noteKinds[n.Kind].Severity), zerolog.WarnLevel) // somebody chose it
		s.log.WithLevel(level).Stringer("note", n).Msg("configuration")
	}
}

func (s *service) openCertificates() error {
	options, loginErr := s.storeOptions()
	store, err := certs.Open(options)
	var backend *certs.Client
	var backendErr error
	if s.c.Backend.TLS {
		backend, backendErr = certs.OpenClient(s.clientOptions())
	}
	s.store, s.backend = store, backend
	return errors.Join(loginErr, err, backendErr)
}

// storeOptions returns what to serve and whom to trust. The error is about ALLOW.
func (s *service) storeOptions() (certs.Options, error) {
	c := &s.c
	login, err := s.login()
	return certs.Options{
		Login:     login,
		CertFiles: c.TLSCertFiles, KeyFiles: c.TLSKeyFiles, KeyPasswordFile: c.TLSKeyPasswordFile, ClientCAFile: c.TLSClientCAFile,
		ClientAuth: c.TLSClientAuth, MinVersion: c.TLSMinVersion, MaxVersion: c.TLSMaxVersion,
		CRLFile: c.TLSCRLFile, CRLWarn: c.TLSCRLExpired == "warn",
		TicketKeysFile: c.TLSTicketKeysFile, OCSP: c.TLSOCSP, Log: s.log,
	}, err
}

func (s *service) clientOptions() certs.ClientOptions {
	c := &s.c
	return certs.ClientOptions{
		CAFile: c.BackendCAFile, CertFile: c.BackendCertFile, KeyFile: c.BackendKeyFile, KeyPasswordFile: c.TLSKeyPasswordFile,
		ServerName: c.BackendServerName, Log: s.log,
	}
}

func (s *service) openProxy() error {
	var err error
	if s.server, err = proxy.New(s.proxyConfig(&s.c)); err != nil {
		return err
	}
	s.judged.Store(s.store.Snapshot().TrustGeneration)
	s.store.OnChange(s.reloaded)
	return nil
}

// proxyConfig is what the proxy follows if c is in use. Its functions ask the configuration of the start, whose variables for them
// change only with a restart.
func (s *service) proxyConfig(c *config.Config) proxy.Config {
	return proxy.Config{
		TLS: s.store.TLSConfig(), Recheck: s.recheck,
		ProxyFrom: c.ProxyProtocolFrom, HandshakeTimeout: c.HandshakeTimeout, MaxHandshakes: c.MaxHandshakes, MaxConnections: c.MaxConnections,
		IdleTimeout: c.IdleTimeout, WriteTimeout: c.WriteTimeout, KeepAlive: c.KeepAlive,
		Backend: proxy.BackendConfig{
			Target: s.target, TLS: s.backendTLS, Credentials: s.c.BackendCredentials,
			Mapped:          func() bool { return s.c.UsersFile != "" },
			RefusePasswords: c.ClientPassword == "refuse",
			ConnectTimeout:  c.BackendConnectTimeout, MaxConnections: c.BackendMaxConnections, SetName: true,
			Shared: c.BackendMode == "shared", Lanes: c.BackendLanes,
		},
		MaxPerIdentity: c.MaxConnectionsPerIdentity, Audit: proxy.Audit{Level: auditLevel(c), Log: s.out.auditLogger()},
		Notice: s.watched.notice, DenyCommands: c.DenyCommands, MaxBulk: int64(c.MaxBulk), MaxArgs: c.MaxArgs, SessionBuffer: int64(c.SessionBuffer),
		BufferLimit: c.ClientMemory(), Log: s.log,
	}
}

func (s *service) target() (network, address string, err error) {
	b, err := s.c.BackendTarget()
	if err == nil && b.TLS != s.c.Backend.TLS {
		err = errors.New("DRAGONTLS_BACKEND_URL_FILE changed between redis:// and rediss://: restart to follow")
	}
	return b.Network, b.Address, err
}

func (s *service) backendTLS() *tls.Config {
	if s.backend == nil {
		return nil
	}
	return s.backend.TLSConfig()
}

func (s *service) listen() error {
	given, err := inheritedListeners()
	if err != nil {
		return err
	}
	if s.listener, err = s.clientListener(given.clients); err != nil {
		return err
	}
	if s.c.AdminListen == "" && given.admin == nil {
		return nil
	}
	o := admin.Options{Listen: s.c.AdminListen, Inherit: given.admin, Ready: s.ready, Collect: s.collect, Status: s.status, Control: s.control(), TakeOver: s.c.TakeOver, Log: s.log}
	if s.c.AdminTokenFile != "" {
		o.Token = s.c.AdminToken
	}
	if s.admin, err = admin.Listen(o); err != nil {
		s.listener.Close()
		return &listenError{config.Prefix + "ADMIN_LISTEN", err, "set DRAGONTLS_ADMIN_LISTEN to an address that is free, or to nothing" + cureOfSocket(s.c)}
	}
	return nil
}

// ready is what /readyz says. Files that are held back do not make it fail: what is in use is good.
func (s *service) ready() admin.Readiness {
	r := s.readiness()
	for _, held := range []string{s.heldDetail(), s.heldSettings()} {
		if held != "" && r.Detail != "" {
			r.Detail += "; " + held
		} else if held != "" {
			r.Detail = held
		}
	}
	return r
}

func (s *service) readiness() admin.Readiness {
	if s.draining.Load() {
		return admin.Readiness{Reason: "draining"}
	}
	if err := s.store.Snapshot().Valid(time.Now()); err != nil {
		return admin.Readiness{Reason: "certificate", Detail: err.Error()}
	}
	r := s.server.BackendReady()
	if r.Reason != "" {
		r.Reason = "backend_" + r.Reason
	}
	return admin.Readiness(r)
}

// run serves until a signal ends it; then it drains. started, if not nil, is called once the listener is up.
func (s *service) run(started func()) int {
	ctx, cancel := context.WithCancel(context.Background())
	signal.Notify(s.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(s.signals)
	s.startAlerts(ctx)
	s.rememberFaults()
	s.watching.Go(func() { paceGC(ctx, paceInterval) })
	s.watching.Go(func() { s.store.Watch(ctx, s.c.TLSReloadInterval) })
	if s.backend != nil {
		s.watching.Go(func() { s.backend.Watch(ctx, s.c.TLSReloadInterval) })
	}
	if s.admin != nil {
		s.watching.Go(func() { s.watch(ctx) })
		s.watching.Go(s.serveAdmin)
	}
	serving := make(chan error, 1)
	go func() { serving <- s.server.Serve(s.listener) }() // ends with Drain or Close
	listening := s.log.Info().Stringer("address", s.listener.Addr()).Str("version", buildVersion())
	if s.admin != nil {
		listening = listening.Stringer("admin", s.admin.Addr())
	}
	listening.Msg("listening")
	if started != nil {
		started()
	}
	s.notify(daemon.SdNotifyReady)
	s.watching.Go(func() { s.feedWatchdog(ctx) })
	code := s.untilSignal(serving)
	s.server.Close()
	if s.admin != nil {
		closing, done := context.WithTimeout(ctx, time.Second)
		s.admin.Close(closing)
		done()
	}
	cancel()
	s.watching.Wait()
	s.log.Info().Int("exit", code).Msg("stopped")
	return code
}

func (s *service) untilSignal(serving <-chan error) int {
	for {
		select {
		case err := <-serving:
			if err != nil {
				s.log.Error().Err(err).Msg("listener failed")
			}
			return exitFailed
		case <-s.drainAsked:
			return s.drain(operatorDrain{})
		case sig := <-s.signals:
			if sig != syscall.SIGHUP {
				return s.drain(sig)
			}
			s.notifyReloading()
			s.reload("SIGHUP")
			s.notify(daemon.SdNotifyReady)
		}
	}
}

func (s *service) serveAdmin() {
	if err := s.admin.Serve(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Error().Err(err).Msg("admin listener failed")
	}
}

// drain fails /readyz at once, goes on for DRAIN_DELAY, then ends the sessions. Another signal ends it. cause is a signal or operatorDrain.
func (s *service) drain(cause fmt.Stringer) int {
	s.draining.Store(true)
	s.notify(daemon.SdNotifyStopping)
	c := s.current()
	s.log.Info().Stringer("signal", cause).Dur("delay", c.DrainDelay).Dur("timeout", c.DrainTimeout).Msg("draining")
	delay := time.NewTimer(c.DrainDelay)
	defer delay.Stop()
	if s.interrupted(delay.C) {
		return exitFailed
	}
	drained := make(chan error, 1)
	go func() { drained <- s.server.Drain(c.DrainTimeout) }() // ends by its timeout, or with Close
	for {
		select {
		case err := <-drained:
			if err != nil {
				s.log.Warn().Err(err).Msg("drain timed out")
				return exitFailed
			}
			return exitOK
		case sig := <-s.signals:
			if endsAtOnce(sig) {
				s.server.Close()
				err := <-drained
				s.log.Warn().Err(err).Stringer("signal", sig).Msg("ended at once")
				return exitFailed
			}
		}
	}
}

// endsAtOnce reports whether sig, while the process drains, ends it at once.
func endsAtOnce(sig os.Signal) bool { return sig != syscall.SIGHUP }

// interrupted waits for the timer; a second signal to end comes first.
func (s *service) interrupted(timer <-chan time.Time) bool {
	for {
		select {
		case <-timer:
			return false
		case sig := <-s.signals:
			if endsAtOnce(sig) {
				s.log.Warn().Stringer("signal", sig).Msg("ended at once")
				return true
			}
		}
	}
}
