//go:build unix

package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dragontls/certs/pki"
)

// Whoever follows the quick starts and revokes a client must see it shut out.

// run runs the binary to its end in the directory of the instance.
func (p *instance) run(args ...string) (string, error) {
	p.t.Helper()
	path, err := binary()
	if err != nil {
		p.t.Fatal(err)
	}
	return tool(p.t, p.dir, "", path, args...)
}

func TestDevObeysPKIRevoke(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	if out, err := p.run("pki", "client", "web"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l, other := p.live(p.tlsAs("client", tls.VersionTLS13)), p.live(p.tlsAs("web", tls.VersionTLS13))
	l.watch()
	out, err := p.run("pki", "revoke", "client")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wantParts(t, out, "revoked client: pki/ca.crl, good for a year\n", "DRAGONTLS_TLS_CRL_FILE")
	<-l.gone
	ended := p.tlsAs("client", tls.VersionTLS12)
	if c, err := tls.Dial("tcp", p.addr, ended); err == nil {
		c.Close()
		t.Error("the revoked client gets in")
	}
	other.ping()
	p.wantEnd()
}

// An earlier version, or somebody who tidied up, left a PKI without a CRL.
func TestDevMakesAMissingCRL(t *testing.T) {
	t.Parallel()
	for _, withKey := range []bool{true, false} {
		dir := t.TempDir()
		if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
			t.Fatal(err)
		}
		remove(t, filepath.Join(dir, "pki", "ca.crl"))
		if !withKey { // moved away: nobody can sign a list, and none is demanded
			remove(t, filepath.Join(dir, "pki", "ca.key"))
		}
		p := &instance{process: dragontls(t, dir, []string{"dev"}, freeAddresses), dir: dir}
		eventually(t, "a line to try", func() bool { return p.printed() != "" || !p.running() })
		p.live(p.tlsAs("client", tls.VersionTLS13))
		if exists(p.file("ca.crl")) != withKey {
			t.Errorf("with the CA's key %v: a CRL is there: %v", withKey, !withKey)
		}
		p.wantEnd()
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A certificate of another PKI has nothing to do with our CRL, and a server without client certificates has no use for it.
func TestDevWithoutACRLOfItsOwn(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, append(freeAddresses, "TLS_CLIENT_AUTH=none")...)
	p.wantEnd()
	other := filepath.Join(t.TempDir(), "other.crt")
	write(t, other, newCA(t, "other").PEM())
	p, _ = developing(t, nil, append(freeAddresses, "TLS_CLIENT_CA_FILE="+other)...)
	p.wantEnd()
}

func TestInitIfMissingMakesAMissingCRL(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	wantOK(t, "init", "--dir", dir)
	remove(t, filepath.Join(dir, "ca.crl"))
	wantOK(t, "init", "--if-missing", "--dir", dir)
	if !exists(filepath.Join(dir, "ca.crl")) {
		t.Error("none was made")
	}
}

// The containers cannot be started everywhere; .ci/compose-test revokes a client there.
func TestComposeFileObeysPKIRevoke(t *testing.T) {
	wantParts(t, read(t, "../../docker-compose.yml"), "DRAGONTLS_TLS_CRL_FILE: /pki/ca.crl\n", "DRAGONTLS_TLS_CRL_EXPIRED: warn\n")
}

// Nothing is written as long as a setting is wrong, and all that is wrong is told at once.
func TestDevTellsEveryFaultBeforeItWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "allow"), []byte("nonsense\n"))
	write(t, filepath.Join(dir, "users.yaml"), []byte("users:\n  - match: [\"cn:a\"]\n    user: a\n    password: p\n"))
	p := dragontls(t, dir, []string{"dev"}, append(freeAddresses, "LISTEN=nonsense", "BACKEND_MODE=magic", "ALLOW=cm:web", "ALLOW_FILE=allow", "USERS_FILE=users.yaml"))
	p.wantExit(exitConfig)
	wantParts(t, p.stderr.String(), "dragontls: bad configuration\n", `DRAGONTLS_LISTEN="nonsense": host:port`, `DRAGONTLS_BACKEND_MODE="magic"`,
		`DRAGONTLS_ALLOW: pattern "cm:web"`, `read patterns "allow"`, "users.yaml:4")
	if strings.Contains(p.stderr.String(), "TLS_CERT_FILE") || exists(filepath.Join(dir, "pki")) {
		t.Errorf("got a PKI, or a complaint that there is none:\n%s", &p.stderr)
	}

	// A pattern alone is a fault of no variable.
	p = dragontls(t, dir, []string{"dev"}, append(freeAddresses, "ALLOW=cm:web"))
	p.wantExit(exitConfig)
	wantParts(t, p.stderr.String(), `DRAGONTLS_ALLOW: pattern "cm:web"`)
	if exists(filepath.Join(dir, "pki")) {
		t.Error("a PKI was made")
	}
}

func TestDevSaysWhatItsBackendLacks(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	wantParts(t, p.stdout.String(), "BullMQ, RQ, Sidekiq, rueidis, MONITOR and ACL need a real backend: dev --backend redis://HOST:PORT\n")
	for _, c := range []struct {
		command string // what one of them begins with
		known   bool   // to the embedded backend
	}{
		{"MONITOR", false},
		{"ACL WHOAMI", false},
		{"CLIENT TRACKING ON", false},
		{"CLIENT NO-EVICT ON", false},
		{"INFO SERVER", false},
		{"LATENCY LATEST", false},
		{"CONFIG SET maxmemory 1", false},
		{"EVAL return(cmsgpack.pack({1})) 0", false},
		{"PING", true},
		{"CLIENT SETNAME x", true},
		{"INFO", true},
		{"CONFIG GET maxmemory", true},
		{"EVAL return(1) 0", true},
		{"NOSUCHCOMMAND", true}, // nobody has it
	} {
		got := p.cli(t, "", strings.Fields(c.command)...)
		if says := strings.Contains(got, "ERR ") && strings.Contains(got, "the embedded backend of dragontls dev lacks it, --backend redis://HOST:PORT names a real one"); says == c.known {
			t.Errorf("%s: got %q", c.command, got)
		}
	}
	p.wantEnd()

	p, _ = developing(t, []string{"--backend", redisServer(t).url()}, freeAddresses...)
	if strings.Contains(p.stdout.String(), "BullMQ") {
		t.Errorf("got of a real backend:\n%s", &p.stdout)
	}
	p.wantEnd()
}
