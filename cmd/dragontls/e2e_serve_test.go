//go:build unix

package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/pki"
)

func TestBadConfigurationListsEveryFault(t *testing.T) {
	dir := t.TempDir()
	p := dragontls(t, dir, []string{"serve"}, []string{
		"LISTEN=nonsense", "HANDSHAKE_TIMEOUT=soon", "LISTENN=:1", "TLS_CERT_FILE=no/such.crt", "BACKEND_URL=http://u:marker@x",
		"MAX_CONNECTIONS=-1", "BACKEND_MODE=magic", "TLS_MIN_VERSION=1.1",
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
	c.SetDeadline(time.Now().Add(60 * time.Second))
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

func TestDrainWithDelay(t *testing.T) {
	p := serving(t, redisServer(t).url(), "DRAIN_DELAY=1500ms", "DRAIN_TIMEOUT=2s").wantReady()
	idle := session(t, p)
	wantAnswer(t, idle, "PING", "+PONG\r\n")
	begun := time.Now()
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
	if _, err := io.ReadAll(idle); err != nil { // close_notify, or this were an error
		t.Errorf("the idle session ended with %v, want close_notify", err)
	}
	p.wantExit(exitOK)
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("ended after %v, before DRAIN_DELAY", took)
	}
}

func TestDrainLetsABlockedCommandEndAndAnswersTheLast(t *testing.T) {
	r := redisServer(t)
	p := serving(t, r.url(), "DRAIN_TIMEOUT=20s").wantReady()
	blocked := session(t, p)
	wantAnswer(t, blocked, "PING", "+PONG\r\n")
	io.WriteString(blocked, "BLPOP queue 0\r\n")
	need(t, "redis-cli")
	eventually(t, "blocked", func() bool {
		return strings.Contains(wantTool(t, "", "redis-cli", "-s", r.socket, "INFO", "clients"), "blocked_clients:1")
	})
	p.signal(syscall.SIGTERM)
	eventually(t, "the listener closes", func() bool {
		c, err := net.Dial("tcp", p.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	wantTool(t, "", "redis-cli", "-s", r.socket, "RPUSH", "queue", "job")
	want := "*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n"
	if got, err := io.ReadAll(blocked); string(got) != want || err != nil {
		t.Errorf("got %q (%v), want the element, then close_notify", got, err)
	}
	p.wantExit(exitOK)
}

func TestDrainThatMustCutExitsOne(t *testing.T) {
	r := redisServer(t, "--enable-debug-command", "yes")
	p := serving(t, r.url(), "DRAIN_TIMEOUT=500ms").wantReady()
	c := session(t, p)
	wantAnswer(t, c, "PING", "+PONG\r\n")
	io.WriteString(c, "DEBUG SLEEP 5\r\n")
	eventually(t, "the command is passed on", func() bool {
		return p.metrics().sum("commands_total", "command", "DEBUG") == 1 || p.metrics().sum("commands_total", "command", "debug") == 1
	})
	p.signal(syscall.SIGTERM)
	p.wantExit(exitFailed)
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for _, vars := range [][]string{{"DRAIN_DELAY=1h"}, {"DRAIN_TIMEOUT=1h"}} {
		p := serving(t, redisServer(t).url(), vars...).wantReady()
		c := session(t, p)
		wantAnswer(t, c, "PING", "+PONG\r\n")
		io.WriteString(c, "BLPOP queue 0\r\n")
		p.signal(syscall.SIGTERM)
		p.wantLog("draining")
		p.signal(syscall.SIGTERM)
		p.wantExit(exitFailed)
	}
}

func TestBackendDownAtStart(t *testing.T) {
	port := freePort(t)
	p := serving(t, (&redis{port: port}).url())
	eventually(t, "not ready, with the reason", func() bool {
		code, body := p.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "backend_dial") && strings.Contains(body, "refused")
	})
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
	if string(got) != "-LOADING dragontls: backend unavailable, the command was not sent\r\n" || err != nil {
		t.Errorf("got %q (%v), want -LOADING and the end", got, err)
	}
	c.Close()
	eventually(t, "the session is counted", func() bool {
		return p.metrics().sum("sessions_closed_total", "reason", "backend_unavailable") == 1
	})
	r := redisAt(t, port)
	p.wantReady()
	health(exitOK)
	wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
	if m := p.metrics(); m.sum("backend_up") != 1 || m.sum("backend_errors_total", "reason", "dial") == 0 {
		t.Errorf("got backend_up %v, %v errors", m.sum("backend_up"), m.sum("backend_errors_total"))
	}
	r.cmd.Process.Kill()
	<-r.ended
	eventually(t, "not ready again", func() bool { code, _ := p.get("/readyz"); return code == http.StatusServiceUnavailable })
	health(exitFailed)
	p.wantEnd()
	health(exitFailed)
}

func TestHealthcheckWithoutAListener(t *testing.T) {
	dragontls(t, t.TempDir(), []string{"healthcheck"}, []string{"ADMIN_LISTEN="}).wantExit(exitFailed)
}

func TestClientsAuthenticateThemselves(t *testing.T) {
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
	r := redisServer(t)
	p := serving(t, "unix://"+r.socket).wantReady()
	wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
	p.wantEnd()
}

func TestBackendOverTLS(t *testing.T) {
	need(t, "redis-server")
	ca := newCA(t, "backend")
	dir := t.TempDir()
	caFile := filepath.Join(dir, "ca.crt")
	write(t, caFile, ca.PEM())
	serverCert, serverKey := pair(t, ca, serverLeaf())
	clientCert, clientKey := pair(t, ca, pki.Leaf{CN: "dragontls", Client: true})
	port := freePort(t)
	redisAt(t, 0, "--tls-port", strconv.Itoa(port), "--tls-cert-file", serverCert, "--tls-key-file", serverKey, "--tls-ca-cert-file", caFile, "--requirepass", "secret")
	url := "rediss://localhost:" + strconv.Itoa(port)
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
		p := serving(t, url, append(vars, "BACKEND_PASSWORD=secret")...)
		eventually(t, name+": not ready, and why", func() bool {
			code, body := p.get("/readyz")
			return code == http.StatusServiceUnavailable && strings.Contains(body, "x509: ")
		})
		p.wantEnd()
	}
}

func TestBackendPasswordRotates(t *testing.T) {
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
	if got := p.metrics().sum("backend_errors_total", "reason", "auth"); got == 0 {
		t.Error("the refused password is not counted")
	}
	p.wantEnd()
}

func TestRefusedPasswordAtStart(t *testing.T) {
	p := serving(t, redisServer(t, "--requirepass", "right").url(), "BACKEND_PASSWORD=wrong")
	eventually(t, "not ready, and why", func() bool {
		code, body := p.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "refused the proxy's credentials")
	})
	p.wantEnd()
}

func TestLimitOfConnections(t *testing.T) {
	p := serving(t, redisServer(t).url(), "MAX_CONNECTIONS=3").wantReady()
	for range 3 {
		wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
	}
	if _, err := tls.Dial("tcp", p.addr, p.clientTLS()); err == nil {
		t.Error("a fourth session")
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want the end of the connection", err)
	}
	if got := p.metrics().sum("handshakes_total", "reason", "max_connections"); got != 1 {
		t.Errorf("got %v refused, want 1", got)
	}
	p.wantEnd()
}

func TestMetricsOfThisVersion(t *testing.T) {
	p := serving(t, redisServer(t).url()).wantReady()
	c := session(t, p)
	wantAnswer(t, c, "SET k v", "+OK\r\n")
	wantAnswer(t, c, "NOSUCHCOMMAND", "-ERR unknown command 'NOSUCHCOMMAND', with args beginning with: \r\n")
	wantAnswer(t, session(t, p), "QUIT", "+OK\r\n")
	eventually(t, "the session with QUIT ends", func() bool { return p.metrics().sum("sessions_closed_total", "reason", "quit") == 1 })
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
	if got := m.sum("connections", "state", "open"); got != 1 {
		t.Errorf("got %v open connections, want 1", got)
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
	p := serving(t, "redis://127.0.0.1:1")
	eventually(t, "the GC percent of an idle proxy", func() bool { return p.metrics().sum("go_gc_gogc_percent") == idlePercent })
}
