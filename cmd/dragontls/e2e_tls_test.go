//go:build unix

package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// pair writes a leaf and its key and returns their paths.
func pair(t testing.TB, ca *pki.CA, l pki.Leaf) (cert, key string) {
	t.Helper()
	certPEM, keyPEM, err := ca.Issue(l)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	write(t, cert, certPEM)
	write(t, key, keyPEM)
	return cert, key
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newCA(t testing.TB, name string) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// ownCA is a proxy whose CA the test holds, so that it can issue what it likes.
func ownCA(t testing.TB, ca *pki.CA, backend string, vars ...string) *instance {
	t.Helper()
	return servingIn(t, ownPKI(t, ca), append(proxyVars(backend), vars...)...)
}

// ownPKI is a directory with pki/ of that CA.
func ownPKI(t testing.TB, ca *pki.CA) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "pki"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "pki", "ca.crt"), ca.PEM())
	for name, leaf := range map[string]pki.Leaf{"server": serverLeaf(), "client": {CN: "client", Client: true}} {
		cert, key := pair(t, ca, leaf)
		write(t, filepath.Join(dir, "pki", name+".crt"), []byte(read(t, cert)))
		write(t, filepath.Join(dir, "pki", name+".key"), []byte(read(t, key)))
	}
	return dir
}

func serverLeaf() pki.Leaf {
	return pki.Leaf{CN: "localhost", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true}
}

// sClient sends a PING with openssl and returns what came until the end of the connection.
func sClient(t *testing.T, p *instance, args ...string) string {
	t.Helper()
	need(t, "openssl")
	cmd := exec.Command("openssl", append([]string{"s_client", "-connect", p.addr, "-CAfile", p.file("ca.crt")}, args...)...)
	cmd.Env = environ()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := launch(t, cmd)
	io.WriteString(in, "PING\r\n") // may fail: the handshake has
	eventually(t, "end or answer", func() bool { return !c.running() || strings.Contains(c.stdout.String(), "+PONG") })
	in.Close()
	return c.stdout.String() + c.stderr.String()
}

func TestHandshakesThatAreRefused(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "end to end")
	p := ownCA(t, ca, redisServer(t).url())
	certArgs := func(ca *pki.CA, l pki.Leaf) []string {
		cert, key := pair(t, ca, l)
		return []string{"-cert", cert, "-key", key}
	}
	good := certArgs(ca, pki.Leaf{CN: "c", Client: true})
	hour := time.Hour
	now := time.Now()
	old := certArgs(ca, pki.Leaf{CN: "c", Client: true, NotBefore: now.Add(-2 * hour), NotAfter: now.Add(-hour)})
	early := certArgs(ca, pki.Leaf{CN: "c", Client: true, NotBefore: now.Add(hour), NotAfter: now.Add(2 * hour)})
	foreign := certArgs(newCA(t, "end to end"), pki.Leaf{CN: "c", Client: true}) // the same name, another key
	for _, c := range []struct {
		name   string
		args   []string
		reason string
	}{
		{"TLS 1.0", append([]string{"-tls1", "-cipher", "DEFAULT@SECLEVEL=0"}, good...), "protocol_version"},
		{"TLS 1.1", append([]string{"-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"}, good...), "protocol_version"},
		{"no certificate, TLS 1.2", []string{"-tls1_2"}, "no_certificate"},
		{"no certificate, TLS 1.3", []string{"-tls1_3"}, "no_certificate"},
		{"another CA, TLS 1.2", append([]string{"-tls1_2"}, foreign...), "unknown_ca"},
		{"another CA, TLS 1.3", append([]string{"-tls1_3"}, foreign...), "unknown_ca"},
		{"expired", old, "certificate_expired"},
		{"not yet valid", early, "certificate_not_yet_valid"},
		{"a server's certificate", certArgs(ca, pki.Leaf{CN: "s", Server: true}), "bad_certificate"},
		{"a client that does not trust us", append([]string{"-verify_return_error", "-CAfile", foreign[1]}, good...), "client_alert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			logged, counted := len(p.logged("handshake refused")), p.metrics().sum("handshakes_total", "result", "refused", "reason", c.reason)
			if out := sClient(t, p, c.args...); strings.Contains(out, "+PONG") {
				t.Fatalf("served:\n%s", out)
			}
			eventually(t, "a log line", func() bool { return len(p.logged("handshake refused")) > logged })
			if line := p.logged("handshake refused")[logged]; line["reason"] != c.reason || line["remote"] == nil {
				t.Errorf("got %v, want reason %s and the remote address", line, c.reason)
			}
			if got := p.metrics().sum("handshakes_total", "result", "refused", "reason", c.reason); got != counted+1 {
				t.Errorf("got %v refused as %s, want %v", got, c.reason, counted+1)
			}
		})
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		if out := sClient(t, p, append([]string{version}, good...)...); !strings.Contains(out, "+PONG") {
			t.Errorf("openssl %s: got\n%s", version, out)
		}
	}
	p.wantEnd()
}

func TestPlaintextClientIsToldWhatToDo(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url())
	for _, text := range []string{"PING\r\n", "*1\r\n$4\r\nPING\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, text)
		got, err := io.ReadAll(c)
		c.Close()
		if !strings.HasPrefix(string(got), "-ERR dragontls: this port speaks TLS only") || strings.Count(string(got), "\n") != 1 {
			t.Errorf("%q: got %q (%v), want one line that says TLS", text, got, err)
		}
	}
	if got := p.metrics().sum("handshakes_total", "result", "refused", "reason", "plaintext"); got != 3 {
		t.Errorf("got %v plaintext, want 3", got)
	}
	p.wantEnd()
}

func TestOnlyOneVersionIsServed(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url(), "TLS_MIN_VERSION=1.3")
	client := []string{"-cert", p.file("client.crt"), "-key", p.file("client.key")}
	if out := sClient(t, p, append(client, "-tls1_2")...); strings.Contains(out, "+PONG") {
		t.Errorf("TLS 1.2 is served:\n%s", out)
	}
	if got := p.metrics().sum("handshakes_total", "result", "refused", "reason", "protocol_version"); got != 1 {
		t.Errorf("got %v refused as protocol_version, want 1", got)
	}
	if out := sClient(t, p, append(client, "-tls1_3")...); !strings.Contains(out, "+PONG") {
		t.Errorf("TLS 1.3 is not served:\n%s", out)
	}
	p.wantEnd()
}

func TestWithoutClientCertificates(t *testing.T) {
	t.Parallel()
	r := redisServer(t)
	for _, auth := range []string{"optional", "none"} {
		p := serving(t, r.url(), "TLS_CLIENT_AUTH="+auth)
		if out := sClient(t, p); !strings.Contains(out, "+PONG") {
			t.Errorf("%s: got\n%s", auth, out)
		}
		if notes := p.logged("configuration"); len(notes) == 0 || !strings.Contains(notes[0]["note"].(string), "TLS_CLIENT_AUTH") {
			t.Errorf("%s: no warning: %v", auth, notes)
		}
		p.wantEnd()
	}
}
