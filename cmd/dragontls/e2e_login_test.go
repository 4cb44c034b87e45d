//go:build unix

package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// Applications carry a certificate and no password, and the backend sees its ACL user all the same.

// loginWorld is a redis-server with ACL users, and a proxy that maps certificates to them.
type loginWorld struct {
	*instance
	t     testing.TB
	ca    *pki.CA
	redis *redis
	users string // the users file
}

const firstUsers = `users:
  - match: ["dns:web.apps.internal"]
    user: web
    password_file: web.pass
  - match: ["uri:spiffe://prod/ns/*/sa/jobs"]
    user: jobs
    password_file: jobs.pass
    deny: [FLUSHALL, "CONFIG|SET"]
  - match: ["ou:teams"]
    user: "team-{cn}"
    password_file: "{user}.pass"
    client_auth: true
`

func newLogin(t testing.TB, vars ...string) *loginWorld {
	t.Helper()
	need(t, "redis-cli")
	args, dir := []string{"--requirepass", "default-secret"}, t.TempDir()
	for name, secret := range map[string]string{"web": "web-secret", "jobs": "jobs-secret", "team-a": "team-secret"} {
		args = append(args, "--user", name, "on", ">"+secret, "~*", "&*", "+@all")
		write(t, filepath.Join(dir, name+".pass"), []byte(secret+"\n"))
	}
	w := &loginWorld{t: t, ca: newCA(t, "login"), redis: redisServer(t, args...)}
	w.users = filepath.Join(dir, "users.yaml")
	write(t, w.users, []byte(firstUsers))
	w.instance = ownCA(t, w.ca, w.redis.url(), append([]string{"USERS_FILE=" + w.users, "TLS_RELOAD_INTERVAL=1h"}, vars...)...).wantReady()
	return w
}

func (w *loginWorld) admin(args ...string) string {
	w.t.Helper()
	return wantTool(w.t, "", "redis-cli", append([]string{"-s", w.redis.socket, "--no-auth-warning", "-a", "default-secret"}, args...)...)
}

func (w *loginWorld) config(l pki.Leaf) *tls.Config {
	w.t.Helper()
	l.Client = true
	cert, key, err := w.ca.Issue(l)
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := tls.X509KeyPair(cert, key)
	if err != nil {
		w.t.Fatal(err)
	}
	c := w.clientTLS()
	c.Certificates, c.ClientSessionCache = []tls.Certificate{p}, tls.NewLRUClientSessionCache(1)
	return c
}

var (
	leafWeb  = pki.Leaf{CN: "x", DNS: []string{"web.apps.internal"}}
	leafJobs = pki.Leaf{CN: "x", URIs: []string{"spiffe://prod/ns/eu/sa/jobs"}}
	leafTeam = pki.Leaf{CN: "a", OU: []string{"teams"}}
)

// ask sends one command as an array and returns the reply; a bulk's content.
func (l *live) ask(args ...string) string {
	l.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return l.raw(b.String())
}

func (l *live) raw(bytes string) string {
	l.t.Helper()
	l.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(l, bytes); err != nil {
		l.t.Fatal(err)
	}
	return l.reply()
}

func (l *live) reply() string {
	l.t.Helper()
	line, err := l.r.ReadString('\n')
	if err != nil {
		l.t.Fatal(err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	if !strings.HasPrefix(line, "$") || line == "$-1" {
		return line
	}
	var n int
	fmt.Sscan(line[1:], &n)
	text := make([]byte, n+2)
	if _, err := io.ReadFull(l.r, text); err != nil {
		l.t.Fatal(err)
	}
	return string(text[:n])
}

func (l *live) whoami(want string) {
	l.t.Helper()
	if got := l.ask("ACL", "WHOAMI"); got != want {
		l.t.Errorf("acts as %q, want %q", got, want)
	}
}

func TestACertificateIsTheLogin(t *testing.T) {
	t.Parallel()
	w := newLogin(t)
	for _, c := range []struct {
		leaf pki.Leaf
		user string
	}{{leafWeb, "web"}, {leafJobs, "jobs"}, {leafTeam, "team-a"}} {
		w.live(w.config(c.leaf)).whoami(c.user)
	}
	for name, leaf := range map[string]pki.Leaf{
		"no rule":             {CN: "nobody"},
		"no user of its name": {CN: "../a", OU: []string{"teams"}},
		"default":             {CN: "x", OU: []string{"team"}},
		"upper case":          {CN: "x", URIs: []string{"spiffe://prod/ns/eu/sa/JOBS"}},
		"CR LF":               {CN: "a\r\nb", OU: []string{"teams"}},
	} {
		wantRefused(t, w.instance, w.config(leaf), name)
	}
	w.wantAtLeast(3, "handshakes_total", "reason", "unmapped")
	w.wantMetric(2, "handshakes_total", "reason", "bad_user")
	w.wantEnd()
}

func TestNoWayAroundTheMapping(t *testing.T) {
	t.Parallel()
	w := newLogin(t)
	config := w.config(leafWeb)
	for name, path := range map[string]func(l *live){
		"AUTH":           func(l *live) { l.wantWrongPass(l.ask("AUTH", "jobs", "jobs-secret")) },
		"AUTH default":   func(l *live) { l.wantWrongPass(l.ask("AUTH", "default-secret")) },
		"auth, inline":   func(l *live) { l.wantWrongPass(l.raw("auth jobs jobs-secret\r\n")) },
		"HELLO AUTH":     func(l *live) { l.wantWrongPass(l.ask("HELLO", "2", "AUTH", "jobs", "jobs-secret")) },
		"hello setname":  func(l *live) { l.wantWrongPass(l.ask("HELLO", "3", "SETNAME", "x", "auth", "jobs", "jobs-secret")) },
		"HELLO AUTH NUL": func(l *live) { l.wantNoPerm(l.ask("HELLO", "2", "AUTH\x00x", "jobs", "jobs-secret")) },
		"RESET NUL": func(l *live) { // Redis takes one in some hundred of them for RESET
			for i := range 3000 {
				if got := l.ask("RESET\x00" + strconv.Itoa(i)); got != "-ERR dragontls: the name of a command must not contain NUL" {
					l.t.Fatalf("got %q", got)
				}
			}
		},
		"RESET":          func(l *live) { l.want(l.ask("RESET"), "+RESET") },
		"RESET and AUTH": func(l *live) { l.want(l.ask("RESET"), "+RESET"); l.wantWrongPass(l.ask("AUTH", "jobs", "jobs-secret")) },
		"queued AUTH": func(l *live) {
			l.want(l.ask("MULTI"), "+OK")
			l.wantNoPerm(l.ask("AUTH", "jobs", "jobs-secret"))
			l.want(l.ask("EXEC"), "-EXECABORT Transaction discarded because of previous errors")
		},
		"pipelined": func(l *live) {
			io.WriteString(l, "*3\r\n$4\r\nAUTH\r\n$4\r\njobs\r\n$11\r\njobs-secret\r\n*1\r\n$5\r\nRESET\r\n*3\r\n$4\r\nauth\r\n$4\r\njobs\r\n$11\r\njobs-secret\r\n")
			l.wantWrongPass(l.reply())
			l.want(l.reply(), "+RESET")
			l.wantWrongPass(l.reply())
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := w.live(config) // from the second on by resumption
			l.t = t
			path(l)
			l.whoami("web")
		})
	}
	t.Run("client_auth", func(t *testing.T) {
		l := w.live(w.config(leafTeam))
		l.t = t
		l.want(l.ask("AUTH", "jobs", "jobs-secret"), "+OK")
		l.whoami("jobs")
		l.want(l.ask("RESET"), "+RESET")
		l.whoami("team-a")
	})
	w.wantEnd()
}

func (l *live) want(got, want string) {
	l.t.Helper()
	if got != want {
		l.t.Errorf("got %q, want %q", got, want)
	}
}

func (l *live) wantWrongPass(got string) {
	l.t.Helper()
	l.want(got, "-WRONGPASS invalid username-password pair or user is disabled.")
}

func (l *live) wantNoPerm(got string) {
	l.t.Helper()
	if !strings.HasPrefix(got, "-NOPERM dragontls: ") {
		l.t.Errorf("got %q, want -NOPERM", got)
	}
}

func TestAMappedPasswordRotates(t *testing.T) {
	t.Parallel()
	w := newLogin(t)
	config := w.config(leafWeb)
	old := w.live(config)
	rename(t, filepath.Join(filepath.Dir(w.users), "web.pass"), []byte("second"))
	if got := w.admin("ACL", "SETUSER", "web", ">second", "<web-secret"); got != "OK\n" {
		t.Fatal(got)
	}
	for range 5 {
		w.live(config).whoami("web")
	}
	old.whoami("web")
	w.live(w.config(leafJobs)).whoami("jobs")
	w.wantEnd()
}

func TestAChangedMappingEndsItsSessions(t *testing.T) {
	t.Parallel()
	w := newLogin(t)
	web, jobs, team := w.live(w.config(leafWeb)), w.live(w.config(leafJobs)), w.live(w.config(leafTeam))
	ticket := w.config(leafWeb)
	resumable(t, w.instance, ticket)
	web.watch()
	without := firstUsers[strings.Index(firstUsers, "  - match: [\"uri:"):]
	changed := time.Now()
	rename(t, w.users, []byte("users:\n"+without))
	t.Logf("the session whose mapping was removed ended %d ms later", wantGone(t, changed, web).Milliseconds())
	wantRefused(t, w.instance, ticket, "a ticket from before")
	jobs.whoami("jobs")
	team.watch()
	rename(t, w.users, []byte("users:\n"+strings.ReplaceAll(without, "team-{cn}", "team-{cn}x")))
	wantGone(t, time.Now(), team)
	jobs.want(jobs.ask("FLUSHALL")[:7], "-NOPERM")
	// Other command rules take effect on a session that goes on.
	rename(t, w.users, []byte("users:\n"+strings.ReplaceAll(without, "FLUSHALL", "DBSIZE")))
	eventually(t, "FLUSHALL is allowed", func() bool { return jobs.ask("FLUSHALL") == "+OK" })
	jobs.wantNoPerm(jobs.ask("DBSIZE"))
	jobs.whoami("jobs")
	w.wantMetric(1, "sessions_closed_total", "reason", "unmapped")
	w.wantMetric(1, "sessions_closed_total", "reason", "user_changed")
	w.wantEnd()
}

func TestAllowPatterns(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "allow")
	file := filepath.Join(t.TempDir(), "allow")
	write(t, file, []byte("cn:guest\n"))
	p := ownCA(t, ca, redisServer(t).url(), "ALLOW=dns:*.apps.internal, cn:client", "ALLOW_FILE="+file, "TLS_RELOAD_INTERVAL=1h").wantReady()
	w := &loginWorld{instance: p, t: t, ca: ca}
	guest := w.live(w.config(pki.Leaf{CN: "guest"}))
	web := w.live(w.config(leafWeb))
	wantRefused(t, p, w.config(pki.Leaf{CN: "stranger"}), "a stranger")
	guest.watch()
	rename(t, file, []byte("cn:somebody\n"))
	wantGone(t, time.Now(), guest)
	wantRefused(t, p, w.config(pki.Leaf{CN: "guest"}), "a guest of before")
	web.ping()
	p.wantMetric(2, "handshakes_total", "reason", "not_allowed")
	p.wantMetric(1, "sessions_closed_total", "reason", "not_allowed")
	p.wantEnd()
}

func TestClientListShowsWhoItIs(t *testing.T) {
	t.Parallel()
	w := newLogin(t)
	l := w.live(w.config(leafWeb))
	if list := w.admin("CLIENT", "LIST"); !strings.Contains(list, " name=dragontls:") || !strings.Contains(list, "web.apps.internal") {
		t.Errorf("CLIENT LIST:\n%s", list)
	}
	l.want(l.ask("CLIENT", "SETNAME", "mine"), "+OK")
	if list := w.admin("CLIENT", "LIST"); !strings.Contains(list, " name=mine ") {
		t.Errorf("CLIENT LIST:\n%s", list)
	}
	w.wantEnd()
}

func TestCheckJudgesTheUsersFile(t *testing.T) {
	t.Parallel()
	w := newLogin(t)
	check := func() map[string]string {
		t.Helper()
		vars := append(proxyVars(w.redis.url()), "USERS_FILE="+w.users, "MAX_CONNECTIONS=100", "BACKEND_PASSWORD=default-secret")
		p := dragontls(t, w.dir, []string{"check", "--json"}, vars)
		<-p.ended
		var r report
		if err := json.Unmarshal([]byte(p.stdout.String()), &r); err != nil {
			t.Fatalf("%v: %s", err, &p.stdout)
		}
		found := map[string]string{}
		for _, f := range r.Findings {
			found[f.ID] = f.Subject + ": " + f.Message
		}
		if strings.Contains(p.stdout.String(), "secret") {
			t.Error("a secret is shown")
		}
		return found
	}
	if found := check(); found["user_credentials"] != "" || found["backend_credentials"] != "" {
		t.Errorf("a good file: %v", found)
	}
	w.admin("ACL", "SETUSER", "jobs", "resetpass", ">other")
	if found := check(); !strings.Contains(found["user_credentials"], "users.yaml:5") {
		t.Errorf("a wrong password: %v", found)
	}
	rename(t, w.users, []byte(strings.Replace(firstUsers, "deny: [FLUSHALL", "deny: [\"@nonsense\"", 1)))
	if found := check(); found["users"] == "" {
		t.Errorf("an unknown category: %v", found)
	}
	w.wantEnd()
}

// audited returns the lines of the audit log of one kind.
func (w *loginWorld) audited(kind string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(w.stderr.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["audit"] == kind {
			found = append(found, fields)
		}
	}
	return found
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	w := newLogin(t, "AUDIT_LOG=commands")
	l := w.live(w.config(leafWeb))
	l.want(l.ask("SET", "audit-key", "audit-value"), "+OK")
	l.ask("AUTH", "jobs", "jobs-secret")
	l.ask("nonsense-name")
	l.Close()
	eventually(t, "the end is audited", func() bool { return len(w.audited("ended")) == 1 })
	accepted, ended := w.audited("accepted")[0], w.audited("ended")[0]
	for field, want := range map[string]any{"user": "web", "client": "dns:web.apps.internal", "tls_version": "1.3", "resumed": false} {
		if accepted[field] != want || ended[field] != want {
			t.Errorf("%s: %v and %v, want %v", field, accepted[field], ended[field], want)
		}
	}
	for _, field := range []string{"identity", "serial", "remote", "time"} {
		if accepted[field] == nil || accepted[field] == "" {
			t.Errorf("no %s in %v", field, accepted)
		}
	}
	if ended["reason"] != "client_closed" || ended["commands"] != 4.0 || ended["bytes_in"] == 0.0 || ended["bytes_out"] == 0.0 {
		t.Errorf("ended: %v", ended)
	}
	var names []string
	for _, line := range w.audited("command") {
		names = append(names, fmt.Sprint(line["command"], " ", line["refused"]))
	}
	if got := strings.Join(names, ", "); got != "PING false, SET false, AUTH true, other false" {
		t.Errorf("commands: %s", got)
	}
	if log := w.stderr.String(); strings.Contains(log, "audit-") || strings.Contains(log, "secret") || strings.Contains(log, "nonsense") {
		t.Errorf("a key, a value or a secret in the log:\n%s", log)
	}
	w.wantEnd()
}

func TestLimitOfOneIdentity(t *testing.T) {
	t.Parallel()
	w := newLogin(t, "MAX_CONNECTIONS_PER_IDENTITY=2")
	config := w.config(leafWeb)
	first, _ := w.live(config), w.live(config)
	wantRefused(t, w.instance, config, "a third")
	wantRefused(t, w.instance, w.config(leafWeb), "a third with a renewed certificate")
	w.live(w.config(leafJobs))
	first.Close()
	eventually(t, "there is room again", func() bool { _, err := handshake(w.addr, config); return err == nil })
	w.wantAtLeast(2, "sessions_closed_total", "reason", "max_connections_identity")
	w.wantEnd()
}
