package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"dragontls/certs/pki"
	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// testCA and the certificates of one test run.
var testPKI = sync.OnceValue(func() *material {
	ca, err := pki.NewCA("proxy tests")
	if err != nil {
		panic(err)
	}
	pair := func(l pki.Leaf) tls.Certificate {
		c, k, err := ca.Issue(l)
		if err != nil {
			panic(err)
		}
		p, err := tls.X509KeyPair(c, k)
		if err != nil {
			panic(err)
		}
		return p
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM())
	return &material{
		ca: ca, pool: pool,
		server: pair(pki.Leaf{CN: "server", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true}),
		client: pair(pki.Leaf{CN: "client", Client: true}),
		issue:  pair,
	}
})

type material struct {
	ca             *pki.CA
	pool           *x509.CertPool
	server, client tls.Certificate
	issue          func(pki.Leaf) tls.Certificate
}

func (m *material) serverConfig() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{m.server}, ClientCAs: m.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS12, DynamicRecordSizingDisabled: true,
	}
}

func (m *material) clientConfig() *tls.Config {
	// One record for what a test sends in one write, as long as it fits.
	return &tls.Config{RootCAs: m.pool, ServerName: "localhost", Certificates: []tls.Certificate{m.client}, DynamicRecordSizingDisabled: true}
}

// harness is a Server on loopback in front of a backend.
type harness struct {
	*Server
	t     testing.TB
	addr  string
	done  chan error
	logs  *syncBuffer
	ahead *leap
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func backendAt(addr string) func() (string, string, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	return func() (string, string, error) { return network, addr, nil }
}

// anyPace makes no dial wait.
var anyPace = backend.Pace{Burst: 1 << 20, Every: 1}

func start(t testing.TB, backend string, change func(*Config)) *harness {
	t.Helper()
	return startBehind(t, backend, change, nil)
}

// startBehind is start with a listener that wrap makes of the real one. Both functions may be nil.
func startBehind(t testing.TB, backend string, change func(*Config), wrap func(net.Listener) net.Listener) *harness {
	t.Helper()
	logs := &syncBuffer{}
	c := Config{
		TLS: testPKI().serverConfig(), Backend: BackendConfig{Target: backendAt(backend)},
		KeepAlive: 30 * time.Second, Log: zerolog.New(logs).Level(zerolog.DebugLevel),
		sessionPace: anyPace, identityPace: anyPace, lanePace: anyPace,
	}
	patient(&c)
	now, ahead := clock.Start(), new(leap)
	c.clock = func() clock.Instant { return now().Add(ahead.Load()) }
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		ln = wrap(ln)
	}
	h := &harness{Server: s, t: t, addr: ln.Addr().String(), done: make(chan error, 1), logs: logs, ahead: ahead}
	go func() { h.done <- s.Serve(ln) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-h.done; err != nil {
			t.Error(err)
		}
		if n := s.buffers.Lent(); n != 0 {
			t.Errorf("buffers still lent: %d bytes", n)
		}
		if n := s.buffers.Total() - s.buffers.Lent(); n != 0 {
			t.Errorf("sessions and connections that have ended still count %d bytes", n)
		}
		if strings.Contains(logs.String(), neverGivenBack) {
			t.Errorf("a session or a lane that has ended held memory:\n%s", logs)
		}
		if n := s.buffers.Quotas(); n != 0 {
			t.Errorf("%d quotas that nobody uses", n)
		}
		if n := s.panics.Load(); n != 0 {
			t.Errorf("%d panics:\n%s", n, logs)
		}
	})
	return h
}

// mode is a way in which sessions reach the backend. What a client sees must be the same in each.
type mode struct {
	name   string
	shared bool
}

func modes() []mode { return []mode{{name: "shared", shared: true}, {name: "paired"}} }

// eachMode runs a test once in each backend mode, side by side. The test starts its servers with m.start.
func eachMode(t *testing.T, f func(t *testing.T, m mode)) {
	t.Helper()
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			f(t, m)
		})
	}
}

// eachModeAlone runs the modes one after the other. It is for a test whose modes write to the same keys of one backend, and for a
// test that measures or changes the whole process: its memory, descriptors or GOMAXPROCS. In the latter no other test runs
// meanwhile, as long as it does not call t.Parallel.
func eachModeAlone(t *testing.T, f func(t *testing.T, m mode)) {
	t.Helper()
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) { f(t, m) })
	}
}

// start starts a Server whose sessions reach the backend in this mode.
func (m mode) start(t testing.TB, backend string, change func(*Config)) *harness {
	t.Helper()
	return start(t, backend, m.with(change))
}

// with changes a configuration to this mode. The Server gives up on nothing before patience does, unless change, which
// may be nil, says so.
func (m mode) with(change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.unavailableTimeout, c.placeTimeout = patience, patience
		if change != nil {
			change(c)
		}
		if m.shared {
			share(c)
		}
	}
}

// nonce is what the proxy asks a lane to echo, and laneSetUp what it asks of a new one last.
var (
	nonce     = regexp.MustCompile(`\A[0-9a-f]{16}\z`)
	laneSetUp = regexp.MustCompile(`\A` + regexp.QuoteMeta(cmd("MULTI")+cmd("EXEC")) + `\*2\r\n\$4\r\nECHO\r\n\$16\r\n[0-9a-f]{16}\r\n\z`)
)

// wantOfTheProxy wants a command to be one that the proxy itself sends in this mode: the prober's, and what proves a lane.
func (m mode) wantOfTheProxy(t *testing.T, words []string) {
	t.Helper()
	switch {
	case len(words) == 1 && (words[0] == "PING" || words[0] == "QUIT"):
	case m.shared && len(words) == 1 && (words[0] == "MULTI" || words[0] == "EXEC"):
	case m.shared && len(words) == 2 && words[0] == "ECHO" && nonce.MatchString(words[1]):
	default:
		t.Errorf("no command of the proxy's own: %q", words)
	}
}

// withoutLaneSetUp takes the last part of a lane's set-up off what came on a new connection.
func (m mode) withoutLaneSetUp(came string) string {
	i := strings.LastIndex(came, cmd("PING"))
	if m.shared && i >= 0 && laneSetUp.MatchString(came[i+len(cmd("PING")):]) {
		return came[:i]
	}
	return came
}

// ownConnections is how many backend connections belong to one session each.
func (h *harness) ownConnections() int {
	st := h.Stats()
	return st.BackendConnections - st.BackendLanes
}

// share makes sessions ride lanes. A client whose Peer has no identity gets that of its certificate: without one its
// session would not share.
func share(c *Config) {
	c.Backend.Shared = true
	recheck := c.Recheck
	c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
		if len(cs.PeerCertificates) == 0 {
			return Peer{}, nil
		}
		leaf := cs.PeerCertificates[0]
		if recheck == nil {
			return Peer{Identity: sha256.Sum256(leaf.Raw), Name: leaf.Subject.CommonName}, nil
		}
		p, err := recheck(cs)
		if err == nil && p.Identity == [32]byte{} {
			p.Identity = sha256.Sum256(leaf.Raw)
		}
		return p, err
	}
}

// wire is a client that speaks raw bytes.
type wire struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (h *harness) dial() *wire {
	h.t.Helper()
	c, err := tls.Dial("tcp", h.addr, testPKI().clientConfig())
	if err != nil {
		h.t.Fatal(err)
	}
	return newWire(h.t, c)
}

func newWire(t testing.TB, c net.Conn) *wire {
	t.Cleanup(func() { c.Close() })
	return &wire{Conn: c, t: t, r: bufio.NewReaderSize(c, 64<<10)}
}

func dialPlain(t testing.TB, addr string) *wire {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return newWire(t, c)
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

func cmd(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// want reads exactly the bytes of s.
func (w *wire) want(s string) {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(s))
	n, err := io.ReadFull(w.r, got)
	if err != nil || string(got) != s {
		w.t.Fatalf("got %q (%v), want %q", got[:n], err, s)
	}
}

func (w *wire) do(reply string, args ...string) {
	w.t.Helper()
	w.send(cmd(args...))
	w.want(reply)
}

// wantEnd reads until the end of the connection and returns what came before it.
func (w *wire) wantEnd() string {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(w.r)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		w.t.Fatalf("still open after %q", b)
	}
	return string(b)
}

// redisServer starts a real one and returns the path of its Unix socket: a TCP port could be taken by another process
// before the server has it. Without redis-server the test is skipped.
func redisServer(t testing.TB, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	// A Unix socket's path holds 108 bytes at most, and that of t.TempDir has the name of the test in it.
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	c := exec.Command(path, append([]string{"--port", "0", "--save", "", "--dir", dir, "--unixsocket", socket,
		"--enable-debug-command", "yes", "--proto-max-bulk-len", "1gb"}, args...)...)
	out := &syncBuffer{}
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	eventually(t, "redis-server accepts", func() bool {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return socket
}

// reserve returns an address of each host, all with one port, that refuses connections until the test listens there itself:
// sockets that are bound there, and do not listen, keep the port from everybody who takes a free one.
func reserve(t testing.TB, hosts ...string) (addrs []string) {
	t.Helper()
	port := 0
	for i := 0; i < len(hosts); i++ {
		bound, err := bindOnly(t, hosts[i], port)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			i, port, addrs = -1, 0, nil // another port, then
			continue
		case err != nil:
			t.Fatal(err)
		}
		port = bound
		addrs = append(addrs, net.JoinHostPort(hosts[i], strconv.Itoa(port)))
	}
	return addrs
}

// bindOnly binds a socket, until the end of the test, and returns its port.
func bindOnly(t testing.TB, host string, port int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return 0, err
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { syscall.Close(fd) })
	// With this option, which net.Listen sets too, a second socket may be bound to the port to listen.
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: netip.MustParseAddr(host).As4(), Port: port}); err != nil {
		return 0, err
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return at.(*syscall.SockaddrInet4).Port, nil
}

// eventually polls until what holds; the limit is only there to end a failing test.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// leap is how much time a test has let pass at once.
type leap struct{ nanoseconds atomic.Int64 }

func (l *leap) Add(d time.Duration) { l.nanoseconds.Add(int64(d)) }

func (l *leap) Load() time.Duration { return time.Duration(l.nanoseconds.Load()) }

// bareServer returns a Server with nothing but a clock, for sessions without a client.
func bareServer() *Server {
	return &Server{c: Config{clock: func() clock.Instant { return 0 }}}
}

// owes reports whether the backend owes the session a reply.
func (s *session) owes() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.owed > 0
}
