//go:build unix

package main

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dragontls/certs/pki"
	"dragontls/proxy/admin/statuspage"
)

// steered runs a command that asks p. vars say where its admin listener is.
func steered(t *testing.T, p *instance, vars []string, code int, args ...string) string {
	t.Helper()
	c := dragontls(t, p.dir, args, vars)
	c.wantExit(code)
	return c.stdout.String() + c.stderr.String()
}

// dialAs opens a session with the certificate of that name.
func (p *instance) dialAs(name string) *tls.Conn {
	p.t.Helper()
	c := p.clientTLS()
	pair, err := tls.LoadX509KeyPair(p.file(name+".crt"), p.file(name+".key"))
	if err != nil {
		p.t.Fatal(err)
	}
	c.Certificates = []tls.Certificate{pair}
	conn, err := tls.Dial("tcp", p.addr, c)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	if !pings(conn) {
		p.t.Fatal("no session")
	}
	return conn
}

// pings reports whether a session answers a PING.
func pings(c net.Conn) bool {
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 64)
	n, err := c.Read(answer)
	return err == nil && string(answer[:n]) == "+PONG\r\n"
}

// The same commands over each kind of admin listener.
func TestOperatorsSteer(t *testing.T) {
	socket := filepath.Join(workDir, "steer.sock")
	token := filepath.Join(workDir, "steer.token")
	if err := os.WriteFile(token, []byte("secret-of-operators\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, vars := range map[string][]string{
		"loopback":    {"ADMIN_LISTEN=127.0.0.1:0"},
		"Unix socket": {"ADMIN_LISTEN=unix://" + socket},
		"token":       {"ADMIN_LISTEN=0.0.0.0:0", "ADMIN_TOKEN_FILE=" + token},
	} {
		t.Run(name, func(t *testing.T) {
			p := serving(t, redisServer(t).url(), append(vars, "AUDIT_LOG=off", "LOG_LEVEL=info")...)
			for _, client := range []string{"web-1", "web-2", "job"} {
				if err := pki.Client(filepath.Join(p.dir, "pki"), client); err != nil {
					t.Fatal(err)
				}
			}
			at := "ADMIN_LISTEN=" + p.admin
			if name == "Unix socket" {
				at = vars[0]
			}
			ask := append([]string{at}, vars[1:]...)
			eventually(t, "ready", func() bool {
				c := dragontls(t, p.dir, []string{"healthcheck"}, ask)
				<-c.ended
				return c.cmd.ProcessState.ExitCode() == exitOK
			})
			steerSessions(t, p, ask)
			steerFiles(t, p, ask)
			asked := p.logged("an operator asked")
			if len(asked) < 8 || asked[1]["action"] != "kill" || asked[1]["identity"] != "cn:web-*" || asked[1]["killed"] != 2.0 {
				t.Errorf("got %v", asked)
			}
			by, _ := asked[0]["by"].(string)
			if name == "Unix socket" && !strings.Contains(by, "uid ") && by != "unix socket" || name != "Unix socket" && !strings.HasPrefix(by, "127.0.0.1:") && !strings.HasPrefix(by, "[::1]:") {
				t.Errorf("asked by %q", by)
			}
			if name == "token" {
				for _, args := range [][]string{{"status"}, {"kill", "*"}, {"drain"}} {
					if got := steered(t, p, ask[:1], exitFailed, args...); !strings.Contains(got, "Authorization: Bearer") {
						t.Errorf("%s without a token: %s", args, got)
					}
				}
			}
			if got := steered(t, p, ask, exitOK, "drain"); got != "draining\n" {
				t.Errorf("got %q", got)
			}
			p.wantExit(exitOK)
			if strings.Contains(p.stderr.String(), "secret-of-operators") {
				t.Error("the token is in the log")
			}
			if _, err := os.Lstat(socket); name == "Unix socket" && err == nil {
				t.Error("the socket is still there")
			}
			if got := steered(t, p, ask, exitFailed, "status"); !strings.Contains(got, "is dragontls running") {
				t.Errorf("got %q", got)
			}
		})
	}
}

func steerSessions(t *testing.T, p *instance, ask []string) {
	t.Helper()
	one, two, job := p.dialAs("web-1"), p.dialAs("web-2"), p.dialAs("job")
	var list []statuspage.Session
	if err := json.Unmarshal([]byte(steered(t, p, ask, exitOK, "sessions", "--identity", "cn:web-*", "--json")), &list); err != nil || len(list) != 2 ||
		list[0].Identity != "cn:web-1" || list[1].Identity != "cn:web-2" {
		t.Errorf("got %v, %+v", err, list)
	}
	all := steered(t, p, ask, exitOK, "sessions")
	wantParts(t, all, "IDENTITY", "cn:job", job.LocalAddr().String())
	wantParts(t, steered(t, p, ask, exitFailed, "kill", "cn:nobody"), "closed 0 sessions")
	wantParts(t, steered(t, p, ask, exitFailed, "kill", "web-1"), "want one as the list of sessions shows it")
	wantParts(t, steered(t, p, ask, exitOK, "kill", "cn:web-*"), "closed 2 sessions")
	if pings(one) || pings(two) || !pings(job) {
		t.Error("kill closed other sessions than those that match")
	}
	other := p.dialAs("job")
	wantParts(t, steered(t, p, ask, exitOK, "kill", job.LocalAddr().String()), "closed 1 session\n")
	if pings(job) || !pings(other) {
		t.Error("kill by address closed another session")
	}
	wantParts(t, steered(t, p, ask, exitOK, "kill", "127.0.0.0/8"), "closed 1 session\n")
	if pings(other) {
		t.Error("kill by network closed nothing")
	}
}

func steerFiles(t *testing.T, p *instance, ask []string) {
	t.Helper()
	wantParts(t, steered(t, p, ask, exitOK, "status"), "dragontls ", ": ready", "Certificates and CRLs", "days left", "server.crt", "Backend", " up since ", "Limits")
	var st statuspage.Status
	if err := json.Unmarshal([]byte(steered(t, p, ask, exitOK, "status", "--json")), &st); err != nil || !st.Ready || st.Schema != statuspage.Schema {
		t.Errorf("got %v, %+v", err, st)
	}
	watching := dragontls(t, p.dir, []string{"status", "--watch"}, ask)
	eventually(t, "status twice", func() bool { return strings.Count(watching.stdout.String(), ": ready") >= 2 })
	watching.signal(syscall.SIGINT)
	<-watching.ended

	wantParts(t, steered(t, p, ask, exitOK, "reload"), "nothing has changed")
	good, err := os.ReadFile(p.file("server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) {
		if err := os.WriteFile(p.file("server.crt"), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("no certificate\n"))
	wantParts(t, steered(t, p, ask, exitFailed, "reload"), "server.crt", "what they held before stays in use")
	write(good)
	wantParts(t, steered(t, p, ask, exitOK, "reload"), "read all files")

	wantParts(t, steered(t, p, ask, exitOK, "log-level", "error"), "the log level is error")
	before := len(p.logged("reload"))
	steered(t, p, ask, exitOK, "reload")
	if got := len(p.logged("reload")); got != before {
		t.Errorf("%d lines of level info were logged at level error", got-before)
	}
	steered(t, p, ask, exitOK, "log-level", "info")
	steered(t, p, ask, exitOK, "reload")
	eventually(t, "a line at level info", func() bool { return len(p.logged("reload")) > before })
	wantParts(t, steered(t, p, ask, exitConfig, "log-level", "inof"), `did you mean "info"?`)
}

// A killed process leaves its socket behind; a live one keeps its path, unless a younger one takes over.
func TestAdminSocketOutlivesItsProcess(t *testing.T) {
	socket := filepath.Join(workDir, "outlive.sock")
	at := "ADMIN_LISTEN=unix://" + socket
	backend := redisServer(t).url()
	first := serving(t, backend, at)
	first.signal(syscall.SIGKILL)
	<-first.ended
	if info, err := os.Lstat(socket); err != nil || info.Mode().Type() != os.ModeSocket {
		t.Fatalf("no stale socket: %v", err)
	}
	second := servingIn(t, first.dir, append(proxyVars(backend), at)...)
	steered(t, second, []string{at}, exitOK, "sessions")
	refused := dragontls(t, first.dir, []string{"serve"}, append(proxyVars(backend), at))
	refused.wantExit(exitFailed)
	wantParts(t, refused.stderr.String(), socket, "another process listens there", "DRAGONTLS_TAKE_OVER=true")
	third := servingIn(t, first.dir, append(proxyVars(backend), at, "TAKE_OVER=true")...)
	second.wantEnd()
	job := third.dialAs("client")
	wantParts(t, steered(t, third, []string{at}, exitOK, "sessions"), job.LocalAddr().String())
	third.wantEnd()
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

// A request to drain while the process drains does not end it at once, as a second SIGTERM would.
func TestAnotherDrainChangesNothing(t *testing.T) {
	p := serving(t, redisServer(t).url(), "DRAIN_DELAY=3s").wantReady()
	for range 2 {
		r, err := http.NewRequest(http.MethodPost, "http://"+p.admin+"/drain", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Dragontls", "1")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Errorf("got %s", resp.Status)
		}
		p.wantLog("draining")
	}
	p.wantExit(exitOK)
}
