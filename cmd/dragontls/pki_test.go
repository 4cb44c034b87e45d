package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func wantOK(t *testing.T, args ...string) outcome {
	t.Helper()
	got := invoke(nil, append([]string{"pki"}, args...)...)
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("pki %q: got %+v", args, got)
	}
	return got
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPKIInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	wantOK(t, "init", "--dir", dir, "--host", "db.example, 10.0.0.1", "--days", "5", "--key-mode", "0640")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"db.example", "10.0.0.1"} {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if err := pair.Leaf.VerifyHostname("localhost"); err == nil {
		t.Error("--host does not replace the default")
	}
	if left := time.Until(pair.Leaf.NotAfter); left > 5*24*time.Hour || left < 4*24*time.Hour {
		t.Errorf("valid for %v, want 5 days", left)
	}
	for name, want := range map[string]os.FileMode{"server.key": 0o640, "ca.key": 0o600, "client.key": 0o600, "ca.crl": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

func TestPKIInitReplacesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	wantOK(t, "init", "--if-missing", "--dir", dir)
	before := content(t, filepath.Join(dir, "server.crt"))
	if got := wantOK(t, "--dir", dir, "--if-missing", "init"); !strings.Contains(got.stdout, "kept") {
		t.Errorf("got %+v", got)
	}
	if got := invoke(nil, "pki", "init", "--dir", dir); got.code != exitFailed || !strings.Contains(got.stderr, "already there") {
		t.Errorf("got %+v", got)
	}
	if content(t, filepath.Join(dir, "server.crt")) != before {
		t.Error("the certificate was replaced")
	}
	// Without a CA something else is there, which is not ours to take for a PKI.
	for _, name := range []string{"ca.crt", "ca.key"} {
		os.Remove(filepath.Join(dir, name))
	}
	if got := invoke(nil, "pki", "init", "--if-missing", "--dir", dir); got.code != exitFailed {
		t.Errorf("got %+v", got)
	}
}

func TestPKIRotateClientAndShow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	wantOK(t, "init", "--dir="+dir)
	server, ca := content(t, filepath.Join(dir, "server.crt")), content(t, filepath.Join(dir, "ca.crt"))
	wantOK(t, "--dir", dir, "rotate")
	if content(t, filepath.Join(dir, "server.crt")) == server || content(t, filepath.Join(dir, "ca.crt")) != ca {
		t.Error("rotate replaces the server certificate and keeps the CA")
	}
	for name, args := range map[string][]string{
		"bob": {"client", "bob", "--dir", dir}, "eve": {"client", "--dir", dir, "eve"}, "ann": {"--dir", dir, "client", "ann"},
	} {
		wantOK(t, args...)
		if _, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")); err != nil {
			t.Error(err)
		}
	}
	if got := wantOK(t, "show", "--dir", dir); !strings.Contains(got.stdout, "CN=bob") {
		t.Errorf("got %+v", got)
	}
}

func TestPKIFaultsExitOne(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{"show", "rotate", "client bob", "revoke bob", "revoke --serial 1f", "revoke --renew", "init --host -bad-"} {
		got := invoke(nil, append([]string{"pki", "--dir", dir}, strings.Fields(args)...)...)
		if got.code != exitFailed || got.stderr == "" || strings.Contains(got.stderr, "usage:") {
			t.Errorf("%s: got %+v", args, got)
		}
	}
}

func TestPKIRevoke(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	wantOK(t, "init", "--dir", dir)
	crl := filepath.Join(dir, "ca.crl")
	before := content(t, crl)
	for _, step := range []struct{ args, want string }{
		{"revoke client", "revoked client: " + crl}, {"revoke client", "client is revoked already"},
		{"--renew revoke", "signed " + crl}, {"revoke --serial 0A:1b", "revoked serial a1b: " + crl},
		{"revoke --serial=A1B", "serial a1b is revoked already"},
	} {
		if got := wantOK(t, append([]string{"--dir", dir}, strings.Fields(step.args)...)...); !strings.Contains(got.stdout, step.want) {
			t.Errorf("%s: got %+v, want %q", step.args, got, step.want)
		}
	}
	if content(t, crl) == before {
		t.Error("ca.crl is still that of init")
	}
	got := wantOK(t, "show", "--dir", dir)
	for _, want := range []string{"revoked: 2", "a1b ", "  revoked\n"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("got\n%s\nwant %q in it", got.stdout, want)
		}
	}
	if got := invoke(nil, "pki", "revoke", "nobody", "--dir", dir); got.code != exitFailed || !strings.Contains(got.stderr, "--serial HEX") {
		t.Errorf("got %+v, want what to do", got)
	}
}
