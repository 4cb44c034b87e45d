//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// A rotation is invisible: while one certificate takes another's place in each of the ways that are in use, clients
// go on and new ones come, and not one of them fails.

// issued is a leaf with its serial.
type issued struct {
	cert, key []byte
	serial    string
}

func issue(t testing.TB, ca *pki.CA) issued {
	t.Helper()
	cert, key, err := ca.Issue(serverLeaf())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(cert)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return issued{cert, key, leaf.SerialNumber.Text(16)}
}

// A rotation puts a pair where the proxy reads it and returns when the last file was in place.
type rotation struct {
	name       string
	cert, key  func(dir string) string // what the proxy is configured with
	first      func(t testing.TB, dir string, p issued)
	rotate     func(t testing.TB, dir string, n int, p issued)
	mismatched bool // the pair on disk does not match for a while, which is no error and is logged once
}

func inDir(name string) func(string) string {
	return func(dir string) string { return filepath.Join(dir, name) }
}

func rename(t testing.TB, path string, data []byte) {
	t.Helper()
	write(t, path+".new", data)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// link points a symbolic link elsewhere, atomically.
func link(t testing.TB, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeBoth(t testing.TB, dir string, p issued) {
	t.Helper()
	write(t, filepath.Join(dir, "tls.crt"), p.cert)
	write(t, filepath.Join(dir, "tls.key"), p.key)
}

var rotations = []rotation{
	{
		name: "rename", cert: inDir("tls.crt"), key: inDir("tls.key"), first: writeBoth, mismatched: true,
		rotate: func(t testing.TB, dir string, _ int, p issued) {
			rename(t, filepath.Join(dir, "tls.key"), p.key)
			rename(t, filepath.Join(dir, "tls.crt"), p.cert)
		},
	},
	{
		name: "overwrite", cert: inDir("tls.crt"), key: inDir("tls.key"), first: writeBoth, mismatched: true,
		rotate: func(t testing.TB, dir string, _ int, p issued) { writeBoth(t, dir, p) },
	},
	{
		name: "..data", cert: inDir("tls.crt"), key: inDir("tls.key"), // as Kubernetes does it
		first: func(t testing.TB, dir string, p issued) {
			writeBoth(t, mkdir(t, filepath.Join(dir, "..0")), p)
			link(t, "..0", filepath.Join(dir, "..data"))
			link(t, "..data/tls.crt", filepath.Join(dir, "tls.crt"))
			link(t, "..data/tls.key", filepath.Join(dir, "tls.key"))
		},
		rotate: func(t testing.TB, dir string, n int, p issued) {
			next := fmt.Sprintf("..%d", n)
			writeBoth(t, mkdir(t, filepath.Join(dir, next)), p)
			link(t, next, filepath.Join(dir, "..data"))
			os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..%d", n-1)))
		},
	},
	{
		name: "live", cert: inDir("live/fullchain.pem"), key: inDir("live/privkey.pem"), // as certbot does it
		first:  func(t testing.TB, dir string, p issued) { archive(t, dir, 0, p) },
		rotate: func(t testing.TB, dir string, n int, p issued) { archive(t, dir, n, p) }, mismatched: true,
	},
	{
		name: "key first", cert: inDir("tls.crt"), key: inDir("tls.key"), first: writeBoth, mismatched: true,
		rotate: func(t testing.TB, dir string, _ int, p issued) {
			rename(t, filepath.Join(dir, "tls.key"), p.key)
			time.Sleep(time.Second) // what is tested
			rename(t, filepath.Join(dir, "tls.crt"), p.cert)
		},
	},
}

func archive(t testing.TB, dir string, n int, p issued) {
	t.Helper()
	mkdir(t, filepath.Join(dir, "archive"))
	mkdir(t, filepath.Join(dir, "live"))
	for name, data := range map[string][]byte{"privkey": p.key, "fullchain": p.cert} {
		file := fmt.Sprintf("%s%d.pem", name, n)
		write(t, filepath.Join(dir, "archive", file), data)
		link(t, "../archive/"+file, filepath.Join(dir, "live", name+".pem"))
	}
}

// rotationsOfEachKind is small in the ordinary run; E2E_ROTATIONS=100 is the full one.
func rotationsOfEachKind(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("E2E_ROTATIONS"))
	if err != nil && os.Getenv("E2E_ROTATIONS") != "" {
		t.Fatalf("E2E_ROTATIONS: %v", err)
	}
	if n == 0 {
		return 5
	}
	return n
}

func TestRotationUnderLoad(t *testing.T) {
	r := redisServer(t)
	for _, kind := range rotations {
		t.Run(kind.name, func(t *testing.T) {
			ca := newCA(t, "rotations")
			dir := t.TempDir()
			current := issue(t, ca)
			kind.first(t, dir, current)
			p := ownCA(t, ca, r.url(), "TLS_CERT_FILE="+kind.cert(dir), "TLS_KEY_FILE="+kind.key(dir), "LOG_LEVEL=info").wantReady()
			c := crowd(t, p, current.serial)
			n := rotationsOfEachKind(t)
			var worst time.Duration
			for i := 1; i <= n; i++ {
				next := issue(t, ca)
				c.allow(next.serial)
				kind.rotate(t, dir, i, next)
				took := c.untilServed(t, next.serial, time.Now())
				worst = max(worst, took)
				c.only(next.serial)
			}
			c.stop(t, n, worst)
			m := p.metrics()
			if got := m.sum("reload_total", "result", "ok"); got != float64(n) {
				t.Errorf("got %v reloads, want %d", got, n)
			}
			if failed := m.sum("reload_total", "result", "failed"); failed > 0 && !kind.mismatched || failed > 4*float64(n) {
				t.Errorf("got %v failed reloads", failed)
			} else if lines := len(p.logged("reload refused, the last good certificates stay")); float64(lines) != failed {
				t.Errorf("got %d lines for %v failed reloads", lines, failed)
			}
			p.wantEnd()
		})
	}
}

// clients are those that connect while certificates are rotated.
type clients struct {
	p         *instance
	pool      *x509.CertPool
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	begun     time.Time
	full      atomic.Int64
	resumed   atomic.Int64
	errors    atomic.Int64
	rounds    atomic.Int64 // of redis-benchmark
	mu        sync.Mutex
	serials   map[string]bool // that may be served
	firstFail error
}

// crowd starts redis-benchmark in a loop, and beside it clients that do nothing but connect.
func crowd(t testing.TB, p *instance, serial string) *clients {
	t.Helper()
	need(t, "redis-benchmark")
	ctx, cancel := context.WithCancel(t.Context())
	c := &clients{p: p, pool: readPool(t, p.file("ca.crt")), cancel: cancel, begun: time.Now(), serials: map[string]bool{serial: true}}
	t.Cleanup(func() { cancel(); c.wg.Wait() })
	for range 3 {
		c.wg.Go(func() { c.connect(ctx, p.clientTLS()) })
	}
	resuming := p.clientTLS()
	resuming.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	c.wg.Go(func() { c.connect(ctx, resuming) })
	c.wg.Go(func() { c.benchmark(ctx) })
	return c
}

func (c *clients) allow(serial string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serials[serial] = true
}

// only: a handshake that begins from now on may see no other.
func (c *clients) only(serial string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serials = map[string]bool{serial: true}
}

func (c *clients) fail(err error) {
	c.errors.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.firstFail == nil {
		c.firstFail = err
	}
}

// connect makes one handshake after the other until ctx ends. The key of the certificate signs each full one.
func (c *clients) connect(ctx context.Context, config *tls.Config) {
	for ctx.Err() == nil {
		c.mu.Lock()
		allowed := c.serials // as of before the handshake; it is replaced, or gets more, never less
		c.mu.Unlock()
		st, err := handshake(c.p.addr, config)
		switch {
		case err != nil && ctx.Err() == nil:
			c.fail(err)
		case err != nil:
		case st.DidResume:
			c.resumed.Add(1)
		default:
			c.full.Add(1)
			serial := st.PeerCertificates[0].SerialNumber.Text(16)
			c.mu.Lock()
			known := allowed[serial] || c.serials[serial]
			c.mu.Unlock()
			if !known {
				c.fail(fmt.Errorf("serial %s is served and neither the old nor the new one", serial))
			}
		}
	}
}

// handshake connects, verifies the chain and gets an answer, so that a client certificate refused would be noticed.
func handshake(addr string, config *tls.Config) (tls.ConnectionState, error) {
	raw, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	conn := tls.Client(raw, config)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, "*1\r\n$4\r\nPING\r\n"); err != nil {
		return tls.ConnectionState{}, fmt.Errorf("handshake: %w", err)
	}
	answer := make([]byte, 7)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "+PONG\r\n" {
		return tls.ConnectionState{}, fmt.Errorf("PING: %q %w", answer, err)
	}
	return conn.ConnectionState(), nil
}

func (c *clients) benchmark(ctx context.Context) {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "redis-benchmark", append(c.p.flags(), "-q", "-t", "set,get", "-n", "2000", "-c", "20", "-P", "4")...)
		cmd.Env = environ()
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			return
		}
		if err != nil || bytes.Contains(bytes.ToLower(out), []byte("err")) {
			c.fail(fmt.Errorf("redis-benchmark: %w\n%s", err, out))
		}
		c.rounds.Add(1)
	}
}

// untilServed polls for the serial and returns how long it took.
func (c *clients) untilServed(t testing.TB, serial string, since time.Time) time.Duration {
	t.Helper()
	config := c.p.clientTLS()
	eventually(t, "the new certificate is served", func() bool {
		st, err := handshake(c.p.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		return st.PeerCertificates[0].SerialNumber.Text(16) == serial
	})
	return time.Since(since)
}

// stop ends the load and says what it was.
func (c *clients) stop(t testing.TB, rotations int, worst time.Duration) {
	t.Helper()
	seconds := time.Since(c.begun).Seconds()
	c.cancel()
	c.wg.Wait()
	full, resumed := c.full.Load(), c.resumed.Load()
	t.Logf("%d rotations in %.1f s: %d full and %d resumed handshakes, %.0f a second, and %d rounds of redis-benchmark: %d errors; worst delay %d ms",
		rotations, seconds, full, resumed, float64(full+resumed)/seconds, c.rounds.Load(), c.errors.Load(), worst.Milliseconds())
	if n := c.errors.Load(); n > 0 {
		t.Errorf("%d clients failed; the first: %v", n, c.firstFail)
	}
	if full < int64(rotations) || resumed < int64(rotations) || worst > 20*time.Second {
		t.Errorf("the machine was too slow for this to mean anything")
	}
}

func TestBadFilesChangeNothingThatIsServed(t *testing.T) {
	ca := newCA(t, "bad files")
	dir := t.TempDir()
	good := issue(t, ca)
	writeBoth(t, dir, good)
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	p := ownCA(t, ca, redisServer(t).url(), "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key, "TLS_RELOAD_INTERVAL=100ms")
	p.wantReady()
	client := p.clientTLS()
	served := func() string {
		t.Helper()
		st, err := handshake(p.addr, client)
		if err != nil {
			t.Fatal(err)
		}
		return st.PeerCertificates[0].SerialNumber.Text(16)
	}
	const refused = "reload refused, the last good certificates stay"
	for _, c := range []struct {
		name, reason string
		damage       func()
	}{
		{"a key of another certificate", "mismatch", func() { rename(t, key, issue(t, ca).key) }},
		{"a truncated certificate", "parse", func() { write(t, cert, good.cert[:len(good.cert)/2]) }},
		{"no file", "unreadable", func() { os.Remove(cert) }},
		{"an empty key", "parse", func() { write(t, key, nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			logged := len(p.logged(refused))
			counted := p.metrics().sum("reload_total", "result", "failed", "reason", c.reason)
			c.damage()
			eventually(t, "the fault is counted", func() bool {
				return p.metrics().sum("reload_total", "result", "failed", "reason", c.reason) > counted
			})
			if got := served(); got != good.serial {
				t.Errorf("got serial %s, want that of before", got)
			}
			if ok := p.metrics().sum("last_reload_successful"); ok != 0 {
				t.Errorf("got last_reload_successful %v, want 0", ok)
			}
			if code, why := p.get("/readyz"); code != 200 {
				t.Errorf("/readyz: %d %s, want ready: what is served is good", code, why)
			}
			time.Sleep(500 * time.Millisecond) // five polls read the same fault again
			if got := len(p.logged(refused)); got != logged+1 {
				t.Errorf("got %d log lines, want 1:\n%v", got-logged, p.logged(refused)[logged:])
			}
			if got := p.metrics().sum("reload_total", "result", "failed", "reason", c.reason); got != counted+1 {
				t.Errorf("got %v counted, want 1", got-counted)
			}
			// The fault is gone without a signal: it is retried.
			ok := p.metrics().sum("reload_total", "result", "ok")
			good = issue(t, ca)
			rename(t, key, good.key)
			rename(t, cert, good.cert)
			eventually(t, "reloaded", func() bool { return p.metrics().sum("reload_total", "result", "ok") > ok })
			if got := served(); got != good.serial {
				t.Errorf("got serial %s, want the new one", got)
			}
		})
	}
	p.wantEnd()
}

func TestRotationWithThePKICommand(t *testing.T) {
	p := serving(t, redisServer(t).url(), "TLS_RELOAD_INTERVAL=1h").wantReady()
	live, err := tls.Dial("tcp", p.addr, p.clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	before := live.ConnectionState().PeerCertificates[0].SerialNumber
	dragontls(t, p.dir, []string{"pki", "rotate"}, nil).wantExit(exitOK)
	config := p.clientTLS()
	eventually(t, "the new certificate is served, by an event alone", func() bool {
		st, err := handshake(p.addr, config)
		return err == nil && st.PeerCertificates[0].SerialNumber.Cmp(before) != 0
	})
	if _, err := io.WriteString(live, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 7)
	if _, err := io.ReadFull(live, answer); err != nil || !strings.HasPrefix(string(answer), "+PONG") {
		t.Errorf("the live session: got %q (%v), want +PONG", answer, err)
	}
	p.wantEnd()
}

func TestSIGHUPReloads(t *testing.T) {
	p := serving(t, redisServer(t).url(), "TLS_RELOAD_INTERVAL=1h").wantReady()
	p.signal(syscall.SIGHUP)
	line := p.wantLog("reload on SIGHUP")
	if line["changed"] != false || line["ok"] != true {
		t.Errorf("got %v, want nothing changed and no fault", line)
	}
	if err := os.Remove(p.file("server.key")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	p.wantLog("reload refused, the last good certificates stay")
	p.signal(syscall.SIGHUP)
	eventually(t, "a forced reload says again what is wrong", func() bool {
		return len(p.logged("reload refused, the last good certificates stay")) >= 2
	})
	p.wantEnd()
}
