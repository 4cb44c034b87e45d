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

// A rotation puts a pair where the proxy reads it and returns when the last file was in place. Its rotate may call refused,
// which returns once the proxy has refused to load what is there.
type rotation struct {
	name       string
	cert, key  func(dir string) string // what the proxy is configured with
	first      func(t testing.TB, dir string, p issued)
	rotate     func(t testing.TB, dir string, n int, p issued, refused func())
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
		rotate: func(t testing.TB, dir string, _ int, p issued, _ func()) {
			rename(t, filepath.Join(dir, "tls.key"), p.key)
			rename(t, filepath.Join(dir, "tls.crt"), p.cert)
		},
	},
	{
		name: "overwrite", cert: inDir("tls.crt"), key: inDir("tls.key"), first: writeBoth, mismatched: true,
		rotate: func(t testing.TB, dir string, _ int, p issued, _ func()) { writeBoth(t, dir, p) },
	},
	{
		name: "..data", cert: inDir("tls.crt"), key: inDir("tls.key"), // as Kubernetes does it
		first: func(t testing.TB, dir string, p issued) {
			writeBoth(t, mkdir(t, filepath.Join(dir, "..0")), p)
			link(t, "..0", filepath.Join(dir, "..data"))
			link(t, "..data/tls.crt", filepath.Join(dir, "tls.crt"))
			link(t, "..data/tls.key", filepath.Join(dir, "tls.key"))
		},
		rotate: func(t testing.TB, dir string, n int, p issued, _ func()) {
			next := fmt.Sprintf("..%d", n)
			writeBoth(t, mkdir(t, filepath.Join(dir, next)), p)
			link(t, next, filepath.Join(dir, "..data"))
			os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..%d", n-1)))
		},
	},
	{
		name: "live", cert: inDir("live/fullchain.pem"), key: inDir("live/privkey.pem"), // as certbot does it
		first:  func(t testing.TB, dir string, p issued) { archive(t, dir, 0, p) },
		rotate: func(t testing.TB, dir string, n int, p issued, _ func()) { archive(t, dir, n, p) }, mismatched: true,
	},
	{
		name: "key first", cert: inDir("tls.crt"), key: inDir("tls.key"), first: writeBoth, mismatched: true,
		rotate: func(t testing.TB, dir string, _ int, p issued, refused func()) {
			rename(t, filepath.Join(dir, "tls.key"), p.key)
			refused()
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
	t.Parallel()
	r := redisServer(t)
	for _, kind := range rotations {
		t.Run(kind.name, func(t *testing.T) {
			ca := newCA(t, "rotations")
			dir := t.TempDir()
			current := issue(t, ca)
			kind.first(t, dir, current)
			p := ownCA(t, ca, r.url(), "TLS_CERT_FILE="+kind.cert(dir), "TLS_KEY_FILE="+kind.key(dir), "LOG_LEVEL=info", longDrain).wantReady()
			c := crowd(t, p, current.serial, load{})
			n := numberFrom(t, "E2E_ROTATIONS", 5) // 100 is the full run
			var worst time.Duration
			for i := 1; i <= n; i++ {
				next := issue(t, ca)
				c.allow(next.serial)
				failed := p.metrics().sum("reload_total", "result", "failed")
				kind.rotate(t, dir, i, next, func() { p.wantAtLeast(failed+1, "reload_total", "result", "failed") })
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

// The watch reads the files once when it begins, which may be after the listener is open. Only what changes behind that
// needs an event to be seen before the interval is over.
func TestRotationWithThePKICommand(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url(), "TLS_RELOAD_INTERVAL=1h").wantReady()
	p.wantMetric(1, "reload_total", "result", "unchanged")
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
	if got := p.metrics().sum("reload_total", "result", "ok"); got != 1 {
		t.Errorf("got %v reloads, want 1", got)
	}
	p.wantEnd()
}

func TestSIGHUPReloads(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url(), "TLS_RELOAD_INTERVAL=1h").wantReady()
	p.signal(syscall.SIGHUP)
	line := p.wantLog("reload")
	if line["by"] != "SIGHUP" || line["changed"] != false || line["ok"] != true {
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
