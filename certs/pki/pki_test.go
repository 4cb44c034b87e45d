package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func loadPair(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	paths := pairPaths(dir, name)
	pair, err := tls.LoadX509KeyPair(paths[0], paths[1])
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func verify(t *testing.T, dir string, leaf *x509.Certificate, host string, usage x509.ExtKeyUsage) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		t.Errorf("verify %v for %q: %v", leaf.Subject, host, err)
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s: mode %o, want %o", filepath.Base(path), got, want)
	}
}

func TestInitMakesWhatMutualTLSNeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if err := Init(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	server := loadPair(t, dir, "server")
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "dragontls"} {
		verify(t, dir, server, host, x509.ExtKeyUsageServerAuth)
	}
	verify(t, dir, loadPair(t, dir, "client"), "", x509.ExtKeyUsageClientAuth)
	if lasts := server.NotAfter.Sub(server.NotBefore); lasts < 90*24*time.Hour || lasts > 91*24*time.Hour {
		t.Errorf("server certificate lasts %v, want 90 days", lasts)
	}
	if got := server.SerialNumber.BitLen(); got > 128 || got < 64 {
		t.Errorf("serial of %d bits, want 128 random ones", got)
	}
	for _, name := range []string{"ca.key", "server.key", "client.key"} {
		wantMode(t, filepath.Join(dir, name), 0o600)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 7 {
		t.Errorf("%d files, want 7: a temporary one stayed", len(entries))
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	for _, name := range []string{"ca.crt", "ca.key", "server.key", "client.crt", "ca.crl"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Init(Options{Dir: dir})
		if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "pki rotate") {
			t.Errorf("with %s: %v, want ErrExists and what to do", name, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("with %s: something was written", name)
		}
	}
}

func TestRotateKeepsTheNamesTheModeAndTheCA(t *testing.T) {
	dir := t.TempDir()
	if err := Init(Options{Dir: dir, Hosts: []string{"Cache.Example", "10.0.0.1"}, KeyMode: 0o640, Validity: 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	before := loadPair(t, dir, "server")
	if err := Rotate(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	after := loadPair(t, dir, "server")
	if before.SerialNumber.Cmp(after.SerialNumber) == 0 || bytes.Equal(before.RawSubjectPublicKeyInfo, after.RawSubjectPublicKeyInfo) {
		t.Error("same serial or key after rotate")
	}
	verify(t, dir, after, "cache.example", x509.ExtKeyUsageServerAuth)
	verify(t, dir, after, "10.0.0.1", x509.ExtKeyUsageServerAuth)
	wantMode(t, filepath.Join(dir, "server.key"), 0o640)
	if err := Rotate(Options{Dir: dir, Hosts: []string{"other.example"}, KeyMode: 0o600}); err != nil {
		t.Fatal(err)
	}
	verify(t, dir, loadPair(t, dir, "server"), "other.example", x509.ExtKeyUsageServerAuth)
	wantMode(t, filepath.Join(dir, "server.key"), 0o600)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Validity: 399 * 24 * time.Hour}, {Validity: -time.Hour}, {Hosts: []string{""}}, {Hosts: []string{"a b"}}, {Hosts: []string{"a..b"}},
		{Hosts: []string{"x*.example"}},
	} {
		o.Dir = t.TempDir()
		if err := Init(o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	dir := t.TempDir()
	if err := Init(Options{Dir: dir, Validity: 398 * 24 * time.Hour, Hosts: []string{"*.example"}}); err != nil {
		t.Fatal(err)
	}
	if c := loadPair(t, dir, "server"); c.NotAfter.Sub(c.NotBefore) > maxValidity {
		t.Errorf("lasts %v, more than 398 days", c.NotAfter.Sub(c.NotBefore))
	}
}

func TestClientNames(t *testing.T) {
	dir := t.TempDir()
	if err := Client(dir, "web"); err == nil || !strings.Contains(err.Error(), "pki init") {
		t.Errorf("without a CA: %v, want what to do", err)
	}
	if err := Init(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "ca", "Server", "CA", "a/b", "../x", "a b", "é", strings.Repeat("x", 65)} {
		if err := Client(dir, name); err == nil {
			t.Errorf("name %q accepted", name)
		}
	}
	for _, name := range []string{"web-1", "a_b.c", strings.Repeat("x", 64)} {
		if err := Client(dir, name); err != nil {
			t.Errorf("name %q: %v", name, err)
			continue
		}
		c := loadPair(t, dir, name)
		verify(t, dir, c, "", x509.ExtKeyUsageClientAuth)
		if c.Subject.CommonName != name {
			t.Errorf("common name %q, want %q", c.Subject.CommonName, name)
		}
		wantMode(t, filepath.Join(dir, name+".key"), 0o600)
	}
}

func TestShowListsEveryCertificate(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if err := Show(dir, &out); err == nil || !strings.Contains(err.Error(), "pki init") {
		t.Errorf("empty directory: %v, want what to do", err)
	}
	if err := Init(Options{Dir: dir, Validity: 10*24*time.Hour + time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := Show(dir, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 6 {
		t.Fatalf("%d lines, want a head, three certificates, a blank and the CRL:\n%s", len(lines), out.String())
	}
	server := loadPair(t, dir, "server")
	for _, want := range []string{"server ", "CN=localhost", "localhost,dragontls,127.0.0.1,::1", server.SerialNumber.Text(16)} {
		if !strings.Contains(lines[3], want) {
			t.Errorf("line %q lacks %q", lines[3], want)
		}
	}
	if !strings.HasSuffix(lines[3], " 10         ok") {
		t.Errorf("line %q does not end in 10 days left and ok", lines[3])
	}
}

func TestAnIntermediateIssuesACompleteChain(t *testing.T) {
	root, err := NewCA("root")
	if err != nil {
		t.Fatal(err)
	}
	one, err := root.Intermediate("one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := one.Intermediate("two")
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := two.Issue(Leaf{CN: "x", OU: []string{"payments"}, URIs: []string{"spiffe://prod/x"}, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if len(pair.Certificate) != 3 {
		t.Fatalf("%d certificates, want 3", len(pair.Certificate))
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(root.PEM())
	between.AppendCertsFromPEM(certPEM)
	opts := x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := pair.Leaf.Verify(opts); err != nil {
		t.Error(err)
	}
}
