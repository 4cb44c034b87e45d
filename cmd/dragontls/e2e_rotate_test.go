//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	return issueLeaf(t, ca, serverLeaf())
}

func issueLeaf(t testing.TB, ca *pki.CA, l pki.Leaf) issued {
	t.Helper()
	cert, key, err := ca.Issue(l)
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

// numberFrom is small in the ordinary run, and what a variable says in the full one.
func numberFrom(t testing.TB, variable string, ordinary int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return ordinary
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: want a number above zero", variable, text)
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
			c := crowd(t, p, current.serial, load{})
			n := numberFrom(t, "E2E_ROTATIONS", 5) // 100 is the full run
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
