//go:build unix

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/pki"
)

func TestBadConfigurationListsEveryFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := dragontls(t, dir, []string{"serve"}, []string{
		"LISTEN=nonsense", "HANDSHAKE_TIMEOUT=soon", "LISTENN=:1", "TLS_CERT_FILE=no/such.crt", "BACKEND_URL=http://u:marker@x",
		"MAX_CONNECTIONS=-1", "BACKEND_MODE=magic", "TLS_MIN_VERSION=1.1", "LOG_FORMAT=console",
	})
	p.wantExit(exitConfig)
	for _, part := range []string{
		"bad configuration", "DRAGONTLS_LISTEN=\"nonsense\": host:port", "DRAGONTLS_HANDSHAKE_TIMEOUT=\"soon\": a duration such as",
		"DRAGONTLS_LISTENN", "did you mean DRAGONTLS_LISTEN?", "DRAGONTLS_TLS_CERT_FILE=\"no/such.crt\": a readable file",
		"DRAGONTLS_TLS_KEY_FILE: required", "dragontls pki init", "DRAGONTLS_TLS_CLIENT_CA_FILE: required",
		"DRAGONTLS_BACKEND_URL (hidden): redis://", "DRAGONTLS_MAX_CONNECTIONS", "DRAGONTLS_BACKEND_MODE", "DRAGONTLS_TLS_MIN_VERSION=\"1.1\"",
	} {
		if !strings.Contains(p.stderr.String(), part) {
			t.Errorf("missing: %s", part)
		}
	}
	if strings.Contains(p.stderr.String(), "marker") {
		t.Error("the password is shown")
	}
	if t.Failed() {
		t.Logf("got:\n%s", &p.stderr)
	}
}

func TestUnreadableKeyIsDescribed(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(workDir, "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve")
	cmd.Dir, cmd.Env = dir, environ(proxyVars("redis://127.0.0.1:1")...)
	want := []string{"server.key", "permission denied", "mode 0600", "uid"}
	if os.Getuid() == 0 { // root reads everything
		for _, d := range []string{workDir, dir} {
			if err := os.Chmod(d, 0o711); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, "65534", "owner 0")
		p := launchAs(t, cmd, 65534)
		p.wantExit(exitConfig)
		wantParts(t, p.stderr.String(), want...)
		return
	}
	if err := os.Chmod(filepath.Join(dir, "pki", "server.key"), 0); err != nil {
		t.Fatal(err)
	}
	want[2] = "mode 0000"
	p := launch(t, cmd)
	p.wantExit(exitConfig)
	wantParts(t, p.stderr.String(), want...)
}

func launchAs(t *testing.T, cmd *exec.Cmd, id uint32) *process {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	return launch(t, cmd)
}

func wantParts(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("missing %q in:\n%s", part, text)
		}
	}
}

func TestMismatchedPairAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	vars := append(proxyVars("redis://127.0.0.1:1"), "TLS_KEY_FILE=pki/client.key")
	p := dragontls(t, dir, []string{"serve"}, vars)
	p.wantExit(exitConfig)
	wantParts(t, p.stderr.String(), "bad configuration", "pki/client.key")
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"LISTEN", "ADMIN_LISTEN"} {
		p := dragontls(t, dir, []string{"serve"}, append(proxyVars("redis://127.0.0.1:1"), name+"="+ln.Addr().String()))
		p.wantExit(exitFailed)
		wantParts(t, p.stderr.String(), ln.Addr().String(), "in use", "set DRAGONTLS_"+name)
	}
}

// session is a connection that speaks RESP by hand.
func session(t testing.TB, p *instance) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", p.addr, p.clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func wantAnswer(t testing.TB, c net.Conn, command, answer string) {
	t.Helper()
	if _, err := io.WriteString(c, command+"\r\n"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(answer))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != answer {
		t.Fatalf("%s: got %q (%v), want %q", command, got[:n], err, answer)
	}
}

func TestDrainWithDelayServesMeanwhile(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url(), "DRAIN_DELAY=1h").wantReady()
	idle := session(t, p)
	wantAnswer(t, idle, "PING", "+PONG\r\n")
	p.signal(syscall.SIGTERM)
	p.wantLog("draining")
	if code, body := p.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("got %d %q, want 503 draining at once", code, body)
	}
	if code, _ := p.get("/livez"); code != http.StatusOK {
		t.Errorf("got %d of /livez, want 200", code)
	}
	wantAnswer(t, session(t, p), "PING", "+PONG\r\n") // still accepted
	wantAnswer(t, idle, "PING", "+PONG\r\n")
}

func TestDrainWithDelayEndsAfterIt(t *testing.T) {
	t.Parallel()
	const delay = 500 * time.Millisecond
	p := serving(t, redisServer(t).url(), "DRAIN_DELAY="+delay.String()).wantReady()
	idle := session(t, p)
	wantAnswer(t, idle, "PING", "+PONG\r\n")
	begun := time.Now()
	p.signal(syscall.SIGTERM)
	if _, err := io.ReadAll(idle); err != nil { // close_notify, or this were an error
		t.Errorf("the idle session ended with %v, want close_notify", err)
	}
	p.wantExit(exitOK)
	if took := time.Since(begun); took < delay {
		t.Errorf("ended after %v, before DRAIN_DELAY", took)
	}
}

func TestDrainLetsABlockedCommandEndAndAnswersTheLast(t *testing.T) {
	t.Parallel()
	r := redisServer(t)
	p := serving(t, r.url(), "DRAIN_TIMEOUT=10s").wantReady() // a blocked command has until its last second
	backend := r.dial(t)
	blocked := session(t, p)
	wantAnswer(t, blocked, "PING", "+PONG\r\n")
	io.WriteString(blocked, "BLPOP queue 0\r\n")
	r.wantBlocked(t, 1)
	p.signal(syscall.SIGTERM)
	eventually(t, "the listener closes", func() bool {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	wantAnswer(t, backend, "RPUSH queue job", ":1\r\n")
	want := "*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n"
	if got, err := io.ReadAll(blocked); string(got) != want || err != nil {
		t.Errorf("got %q (%v), want the element, then close_notify", got, err)
	}
	p.wantExit(exitOK)
}

func TestDrainThatMustCutExitsOne(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		r := lockedRedis(t)
		p := serving(t, r.url(), "BACKEND_MODE="+mode, "BACKEND_PASSWORD="+r.password, "DRAIN_TIMEOUT=500ms").wantReady()
		c := session(t, p)
		wantAnswer(t, c, "GET k", "$-1\r\n")
		r.signal(syscall.SIGSTOP) // it will never answer
		io.WriteString(c, "GET k\r\n")
		p.wantMetric(2, "commands_total", "command", "GET") // it is passed on
		p.signal(syscall.SIGTERM)
		p.wantExit(exitFailed)
	})
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	for _, vars := range [][]string{{"DRAIN_DELAY=1h"}, {"DRAIN_TIMEOUT=1h"}} {
		r := redisServer(t)
		p := serving(t, r.url(), vars...).wantReady()
		c := session(t, p)
		wantAnswer(t, c, "PING", "+PONG\r\n")
		io.WriteString(c, "BLPOP queue 0\r\n")
		r.wantBlocked(t, 1) // or the session were idle, and the drain soon over
		p.signal(syscall.SIGTERM)
		p.wantLog("draining")
		p.signal(syscall.SIGTERM)
		p.wantExit(exitFailed)
	}
}

func TestBackendDownAtStart(t *testing.T) {
	t.Parallel()
	r := redisWithAddress(t)
	p := serving(t, r.url())
	p.wantNotReady("backend_refused")
	p.wantNotReady("refused")
	if got := p.metrics().sum("backend_up"); got != 0 {
		t.Errorf("got backend_up %v, want 0", got)
	}
	health := func(code int) {
		t.Helper()
		dragontls(t, p.dir, []string{"healthcheck"}, []string{"ADMIN_LISTEN=" + p.admin}).wantExit(code)
	}
	health(exitFailed)
	c := session(t, p)
	io.WriteString(c, "PING\r\n")
	got, err := io.ReadAll(c)
	if len(got) > 0 || err != nil {
		t.Errorf("got %q (%v), want the end", got, err)
	}
	c.Close()
	p.wantMetric(1, "sessions_closed_total", "reason", "backend_unavailable")
	r.start(t)
	p.wantReady()
	health(exitOK)
	wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
	if m := p.metrics(); m.sum("backend_up") != 1 || m.sum("backend_errors_total", "reason", "refused") == 0 {
		t.Errorf("got backend_up %v, %v errors", m.sum("backend_up"), m.sum("backend_errors_total"))
	}
	r.kill()
	p.wantNotReady("")
	health(exitFailed)
	p.wantEnd()
	health(exitFailed)
}

func TestHealthcheckWithoutAListener(t *testing.T) {
	t.Parallel()
	dragontls(t, t.TempDir(), []string{"healthcheck"}, []string{"ADMIN_LISTEN="}).wantExit(exitFailed)
}

func TestClientsAuthenticateThemselves(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t, "--requirepass", "theirs").url()).wantReady()
	c := session(t, p)
	wantAnswer(t, c, "PING", "-NOAUTH Authentication required.\r\n")
	wantAnswer(t, c, "AUTH theirs", "+OK\r\n")
	wantAnswer(t, c, "PING", "+PONG\r\n")
	need(t, "redis-cli")
	if got := p.cli(t, "", "--no-auth-warning", "-a", "theirs", "PING"); got != "PONG\n" {
		t.Errorf("got %q, want PONG", got)
	}
	p.wantEnd()
}

func TestBackendOverASocket(t *testing.T) {
	t.Parallel()
	r := redisServer(t)
	p := serving(t, "unix://"+r.socket).wantReady()
	wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
	p.wantEnd()
}

func TestBackendOverTLS(t *testing.T) {
	t.Parallel()
	need(t, "redis-server")
	ca := newCA(t, "backend")
	dir := t.TempDir()
	caFile := filepath.Join(dir, "ca.crt")
	write(t, caFile, ca.PEM())
	at := ownAddress()
	leaf := serverLeaf()
	leaf.IPs = append(leaf.IPs, at.Addr().AsSlice())
	serverCert, serverKey := pair(t, ca, leaf)
	clientCert, clientKey := pair(t, ca, pki.Leaf{CN: "dragontls", Client: true})
	redisServer(t, "--bind", at.Addr().String(), "--tls-port", fmt.Sprint(at.Port()), "--tls-cert-file", serverCert, "--tls-key-file", serverKey,
		"--tls-ca-cert-file", caFile, "--requirepass", "secret")
	url := "rediss://" + at.String()
	p := serving(t, url, "BACKEND_CA_FILE="+caFile, "BACKEND_CERT_FILE="+clientCert, "BACKEND_KEY_FILE="+clientKey, "BACKEND_PASSWORD=secret").wantReady()
	c := session(t, p)
	wantAnswer(t, c, "SET k v", "+OK\r\n")
	wantAnswer(t, c, "GET k", "$1\r\nv\r\n")
	if !p.metrics().has("cert_not_after_seconds") {
		t.Error("no certificate in /metrics")
	}
	p.wantEnd()

	foreign := newCA(t, "backend")
	write(t, caFile+".other", foreign.PEM())
	for name, vars := range map[string][]string{
		"another CA":   {"BACKEND_CA_FILE=" + caFile + ".other", "BACKEND_CERT_FILE=" + clientCert, "BACKEND_KEY_FILE=" + clientKey},
		"another name": {"BACKEND_CA_FILE=" + caFile, "BACKEND_CERT_FILE=" + clientCert, "BACKEND_KEY_FILE=" + clientKey, "BACKEND_SERVER_NAME=other.internal"},
	} {
		t.Run(name, func(t *testing.T) {
			p := serving(t, url, append(vars, "BACKEND_PASSWORD=secret")...)
			p.wantNotReady("x509: ")
			p.wantEnd()
		})
	}
}

func TestBackendPasswordRotates(t *testing.T) {
	t.Parallel()
	r := redisServer(t, "--requirepass", "first")
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, []byte("first\n"))
	p := serving(t, r.url(), "BACKEND_PASSWORD_FILE="+file).wantReady()
	old := session(t, p)
	wantAnswer(t, old, "PING", "+PONG\r\n")
	need(t, "redis-cli")
	rename(t, file, []byte("second\n"))
	if got := wantTool(t, "", "redis-cli", "-s", r.socket, "--no-auth-warning", "-a", "first", "CONFIG", "SET", "requirepass", "second"); got != "OK\n" {
		t.Fatal(got)
	}
	for range 5 {
		wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
	}
	wantAnswer(t, old, "PING", "+PONG\r\n")

	// A password that is wrong: nobody gets in, and /readyz says why.
	rename(t, file, []byte("third\n"))
	c := session(t, p)
	io.WriteString(c, "PING\r\n")
	if got, err := io.ReadAll(c); !strings.HasPrefix(string(got), "-") || err != nil {
		t.Errorf("got %q (%v), want an error and the end", got, err)
	}
	p.wantAtLeast(1, "backend_errors_total", "reason", "auth")
	p.wantEnd()
}

func TestRefusedPasswordAtStart(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t, "--requirepass", "right").url(), "BACKEND_PASSWORD=wrong")
	p.wantNotReady("refused the proxy's credentials")
	p.wantEnd()
}

func TestMetricsOfThisVersion(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url()).wantReady()
	c := session(t, p)
	wantAnswer(t, c, "SET k v", "+OK\r\n")
	wantAnswer(t, c, "NOSUCHCOMMAND", "-ERR unknown command 'NOSUCHCOMMAND', with args beginning with: \r\n")
	wantAnswer(t, session(t, p), "QUIT", "+OK\r\n")
	p.wantMetric(1, "sessions_closed_total", "reason", "quit")
	p.wantMetric(1, "connections", "state", "open")
	m := p.metrics()
	for _, family := range []string{
		"connections", "sessions_closed_total", "handshakes_total", "handshake_seconds_bucket", "commands_total", "command_seconds_bucket",
		"bytes_total", "backend_connections", "backend_dials_total", "backend_up", "cert_not_after_seconds", "cert_not_before_seconds",
		"reload_total", "last_reload_success_timestamp_seconds", "last_reload_successful", "trust_generation", "buffer_bytes", "panics_total",
	} {
		if !m.has(family) {
			t.Errorf("no dragontls_%s", family)
		}
	}
	for _, s := range m {
		if strings.Contains(strings.ToLower(s.labels["command"]), "nosuch") {
			t.Errorf("a label from a client: %v", s)
		}
	}
	if in, out := m.sum("bytes_total", "direction", "in"), m.sum("bytes_total", "direction", "out"); in == 0 || out == 0 {
		t.Errorf("got %v bytes in, %v out", in, out)
	}
	if got := m.sum("cert_not_after_seconds"); got < float64(time.Now().Unix()) {
		t.Errorf("got %v, want ends of validity in the future", got)
	}
	p.wantEnd()
}

func TestServePacesTheGC(t *testing.T) {
	t.Parallel()
	p := serving(t, "redis://127.0.0.1:1")
	p.wantMetric(idlePercent, "go_gc_gogc_percent")
}

// A backend that takes no more clients is named to the client, in the log, and by /readyz, which stays ready: whoever has a connection is
// served.
func TestFullBackendIsNamed(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"shared", "paired"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := redisServer(t)
			p := serving(t, r.url(), "BACKEND_MODE="+mode).wantReady()
			old := session(t, p)
			wantAnswer(t, old, "SET k v", "+OK\r\n")
			wantAnswer(t, old, "GET k", "$1\r\nv\r\n")
			operator := r.dial(t)
			wantAnswer(t, operator, "CONFIG SET maxclients 1", "+OK\r\n") // whoever leaves makes no room
			late := session(t, p)
			io.WriteString(late, "EVAL 1 0\r\n")
			if got, err := io.ReadAll(late); string(got) != "-ERR max number of clients reached\r\n" || err != nil {
				t.Errorf("got %q (%v)", got, err)
			}
			wantAnswer(t, old, "GET k", "$1\r\nv\r\n")
			if code, text := p.get("/readyz"); code != http.StatusOK || !strings.HasPrefix(text, "ready\nbackend_max_clients\n") || !strings.Contains(text, "ERR max number of clients reached") {
				t.Errorf("/readyz: %d %q", code, text)
			}
			p.wantAtLeast(1, "backend_errors_total", "reason", "max_clients")
			p.wantEnd()
			if n := strings.Count(p.stderr.String(), "its maxclients is reached"); n != 1 {
				t.Errorf("%d lines in the log", n)
			}
		})
	}
}
