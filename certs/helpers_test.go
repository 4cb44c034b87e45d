package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logBuffer is what a test's Store logged, a JSON line each.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}

const refusedMessage = "reload refused"

// fixture is a CA, a client of it, and a directory with a server pair.
type fixture struct {
	t      testing.TB
	ca     *pki.CA
	dir    string
	log    *logBuffer
	client tls.Certificate
	opts   Options
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: newCA(t, "root"), dir: t.TempDir(), log: &logBuffer{}}
	f.client = f.clientOf(f.ca)
	f.opts = Options{
		CertFiles:    []string{f.path("server.crt")},
		KeyFiles:     []string{f.path("server.key")},
		ClientCAFile: f.path("ca.crt"),
		ClientAuth:   tls.RequireAndVerifyClientCert,
		Log:          zerolog.New(f.log),
	}
	f.write("ca.crt", f.ca.PEM())
	f.writePair("server", f.pair())
	return f
}

func newCA(t testing.TB, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// pem is a certificate and its key.
type pemPair struct{ cert, key []byte }

func (p pemPair) serial(t testing.TB) string {
	t.Helper()
	c, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.SerialNumber.Text(16)
}

func (f *fixture) issue(ca *pki.CA, l pki.Leaf) pemPair {
	f.t.Helper()
	cert, key, err := ca.Issue(l)
	if err != nil {
		f.t.Fatal(err)
	}
	return pemPair{cert, key}
}

// pair is a new certificate for the server.
func (f *fixture) pair() pemPair {
	f.t.Helper()
	return f.issue(f.ca, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true})
}

func (f *fixture) clientOf(ca *pki.CA) tls.Certificate {
	f.t.Helper()
	p := f.issue(ca, pki.Leaf{CN: "client", Client: true})
	c, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) write(name string, data []byte) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.WriteFile(f.path(name), data, 0o600))
}

func (f *fixture) writePair(name string, p pemPair) {
	f.t.Helper()
	f.write(name+".key", p.key)
	f.write(name+".crt", p.cert)
}

// rename replaces a file as careful writers do.
func (f *fixture) rename(name string, data []byte) {
	f.t.Helper()
	f.write(name+".tmp", data)
	f.must(os.Rename(f.path(name+".tmp"), f.path(name)))
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) open() *Store {
	f.t.Helper()
	s, err := Open(f.opts)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// watch runs Watch until the test ends, and returns when its first reload is
// over: what is written from then on, only an event or a poll can bring.
func (f *fixture) watch(s *Store, interval time.Duration) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, interval)
	}()
	f.t.Cleanup(func() { cancel(); <-done })
	before := s.Stats().ReloadsUnchanged
	f.eventually("watching", func() bool { return s.Stats().ReloadsUnchanged > before })
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not reached: %s", what)
		}
	}
}

// serve answers each handshake with one byte; the returned address lives as long as the test.
func (f *fixture) serve(config *tls.Config) string {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.must(err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				conn := tls.Server(c, config)
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				if _, err := conn.Write([]byte("k")); err == nil {
					_, _ = io.Copy(io.Discard, conn)
				}
			})
		}
	})
	f.t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// serveOnce hands one connection to handle, and closes it when the client does.
func (f *fixture) serveOnce(handle func(*tls.Conn), config *tls.Config) string {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.must(err)
	var done sync.WaitGroup
	done.Go(func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(c, config)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		handle(conn)
		_, _ = io.Copy(io.Discard, conn)
	})
	f.t.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String()
}

func (f *fixture) clientConfig() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.ca.PEM())
	return &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{f.client}}
}

// dial shakes hands and waits for the byte that proves that the server agreed.
func dial(addr string, config *tls.Config) (tls.ConnectionState, error) {
	c, err := net.DialTimeout("tcp", addr, time.Minute)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	conn := tls.Client(c, config)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.ConnectionState(), nil
}

func (f *fixture) dial(addr string, config *tls.Config) tls.ConnectionState {
	f.t.Helper()
	cs, err := dial(addr, config)
	f.must(err)
	return cs
}

// served is the serial a new client sees.
func (f *fixture) served(addr string) string {
	f.t.Helper()
	return f.dial(addr, f.clientConfig()).PeerCertificates[0].SerialNumber.Text(16)
}

func (f *fixture) wantServed(addr string, p pemPair) {
	f.t.Helper()
	if got, want := f.served(addr), p.serial(f.t); got != want {
		f.t.Fatalf("served serial %s, want %s", got, want)
	}
}

// reasonOf is the reason of the first fault in err.
func reasonOf(err error) string {
	var f *Fault
	if errors.As(err, &f) {
		return f.Reason
	}
	return "no fault"
}

func reasons(err error) []string {
	var all []string
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, e := range many.Unwrap() {
		var f *Fault
		if errors.As(e, &f) {
			all = append(all, filepath.Base(f.File)+" "+f.Reason)
		} else {
			all = append(all, "no fault")
		}
	}
	return all
}
