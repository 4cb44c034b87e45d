//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/certs"
	"dragontls/certs/pki"
	"dragontls/config"
)

// deployment is a directory with a PKI and the variables of a good configuration.
type deployment struct {
	t    *testing.T
	dir  string
	vars map[string]string
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	d := &deployment{t: t, dir: t.TempDir()}
	if err := pki.Init(pki.Options{Dir: d.dir}); err != nil {
		t.Fatal(err)
	}
	d.vars = map[string]string{
		"TLS_CERT_FILE": d.path("server.crt"), "TLS_KEY_FILE": d.path("server.key"), "TLS_CLIENT_CA_FILE": d.path("ca.crt"),
		"TLS_CRL_FILE": d.path("ca.crl"),
		// Defaults would be lowered where few files may be open.
		"MAX_CONNECTIONS": "50", "MAX_HANDSHAKES": "50", "BACKEND_CONNECT_TIMEOUT": "20s",
	}
	return d
}

func (d *deployment) path(name string) string { return filepath.Join(d.dir, name) }

// file writes a file with a mode and returns its path.
func (d *deployment) file(name, text string, mode os.FileMode) string {
	d.t.Helper()
	write(d.t, d.path(name), []byte(text))
	d.chmod(name, mode)
	return d.path(name)
}

func (d *deployment) chmod(name string, mode os.FileMode) {
	d.t.Helper()
	if err := os.Chmod(d.path(name), mode); err != nil {
		d.t.Fatal(err)
	}
}

func (d *deployment) touch(name string, ahead time.Duration) {
	d.t.Helper()
	at := time.Now().Add(ahead)
	if err := os.Chtimes(d.path(name), at, at); err != nil {
		d.t.Fatal(err)
	}
}

// pair replaces the server's certificate by one of another CA, and returns that CA.
func (d *deployment) pair(l pki.Leaf) *pki.CA {
	d.t.Helper()
	ca, err := pki.NewCA("test")
	if err != nil {
		d.t.Fatal(err)
	}
	l.Server = true
	cert, key, err := ca.Issue(l)
	if err != nil {
		d.t.Fatal(err)
	}
	write(d.t, d.path("server.crt"), cert)
	write(d.t, d.path("server.key"), key)
	return ca
}

func (d *deployment) env() []string {
	var env []string
	for name, value := range d.vars {
		env = append(env, "DRAGONTLS_"+name+"="+value)
	}
	return env
}

// check runs it with and without --json, which must agree.
func (d *deployment) check(args ...string) (report, outcome) {
	d.t.Helper()
	text := invoke(d.env(), append([]string{"check"}, args...)...)
	machine := invoke(d.env(), append([]string{"check", "--json"}, args...)...)
	var r report
	if err := json.Unmarshal([]byte(machine.stdout), &r); err != nil {
		d.t.Fatalf("%v in:\n%s%s", err, machine.stdout, machine.stderr)
	}
	if machine.code != text.code || machine.stderr != "" || r.Findings == nil || len(r.Checked) == 0 && r.Result != resultBad {
		d.t.Errorf("got %+v with --json, %+v without", machine, text)
	}
	return r, text
}

// timed is the time of a run, and how long before or after it something is.
var timed = regexp.MustCompile(`current time \S+|\b(\d+h)?(\d+m)?\d+s\b`)

// untimed leaves out what differs between two runs.
func untimed(s string) string { return timed.ReplaceAllString(s, "") }

// wantFound wants exactly these IDs, a line for each, and the exit code that says so.
func (d *deployment) wantFound(want []string, args ...string) report {
	d.t.Helper()
	r, text := d.check(args...)
	var got []string
	for _, f := range r.Findings {
		got = append(got, f.ID)
		if !strings.Contains(untimed(text.stdout), untimed(f.Subject+": "+oneLine(f.Message)+"; "+oneLine(f.Cure)+"  ["+f.ID+"]\n")) || f.Subject == "" || f.Message == "" || f.Cure == "" {
			d.t.Errorf("%+v is not what is printed:\n%s", f, text.stdout)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		d.t.Errorf("got %v, want %v:\n%s", got, want, text.stdout)
	}
	notes := !slices.ContainsFunc(r.Findings, func(f certs.Finding) bool { return f.Severity != certs.SeverityNote })
	if !notes && (text.code != exitFailed || r.Result != resultFindings || strings.Count(text.stdout, "\n") != len(want)) {
		d.t.Errorf("got %q, %+v, want a line for each finding", r.Result, text)
	}
	if notes && (text.code != exitOK || r.Result != resultOK || !strings.HasPrefix(text.stdout, "ok: ") || strings.Count(text.stdout, "\n") != 1+len(want)) {
		d.t.Errorf("got %q, %+v, want a line, and one for each note", r.Result, text)
	}
	return r
}

func TestCheckFindings(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(d *deployment)
		hosts string
		want  []string
	}{
		{"nothing", func(d *deployment) {}, "", nil},
		{"nothing for these names", func(d *deployment) {}, "localhost, 127.0.0.1,[::1],dragontls", nil},
		{"nothing with secrets in files and a token", func(d *deployment) {
			d.vars["BACKEND_PASSWORD_FILE"] = d.file("password", "p", 0o400)
			d.vars["ADMIN_TOKEN_FILE"] = d.file("token", "t", 0o440)
			d.vars["ADMIN_LISTEN"] = ":9380"
			d.vars["TLS_TICKET_KEYS_FILE"] = d.file("tickets", strings.Repeat("0123456789abcdef", 4), 0o600)
		}, "", nil},
		{"other names", func(d *deployment) {}, "localhost,cache.example", []string{"host_not_covered"}},
		{"key of everybody", func(d *deployment) { d.chmod("server.key", 0o644) }, "", []string{"key_mode"}},
		{"password of everybody", func(d *deployment) { d.vars["BACKEND_PASSWORD_FILE"] = d.file("password", "p", 0o644) }, "", []string{"secret_mode"}},
		{"URL of everybody", func(d *deployment) { d.vars["BACKEND_URL_FILE"] = d.file("url", "redis://127.0.0.1:1", 0o644) }, "", []string{"secret_mode"}},
		{"token of everybody", func(d *deployment) { d.vars["ADMIN_TOKEN_FILE"] = d.file("token", "p", 0o644) }, "", []string{"secret_mode"}},
		{"webhook of everybody", func(d *deployment) {
			d.vars["ALERT_WEBHOOK_URL_FILE"] = d.file("hook", "https://hooks.example/x", 0o644)
		}, "", []string{"secret_mode"}},
		{"ticket keys of everybody", func(d *deployment) {
			d.vars["TLS_TICKET_KEYS_FILE"] = d.file("tickets", strings.Repeat("0123456789abcdef", 4), 0o644)
		}, "", []string{"secret_mode"}},
		{"ends soon", func(d *deployment) {
			d.pair(pki.Leaf{DNS: []string{"x"}, NotBefore: time.Now().Add(-1500 * time.Hour), NotAfter: time.Now().Add(700 * time.Hour)})
		}, "", []string{"chain_not_verified", "expires_soon"}},
		{"ends later than asked", func(d *deployment) {
			d.pair(pki.Leaf{DNS: []string{"x"}, NotBefore: time.Now().Add(-1500 * time.Hour), NotAfter: time.Now().Add(700 * time.Hour)})
			d.vars["EXPIRY_WARNING"] = "480h"
		}, "", []string{"chain_not_verified"}},
		{"key of everybody in the second pair and no SAN in the first", func(d *deployment) {
			d.vars["TLS_CERT_FILE"] += "," + d.path("second.crt")
			d.vars["TLS_KEY_FILE"] += "," + d.path("second.key")
			d.file("second.crt", content(d.t, d.path("server.crt")), 0o644)
			d.file("second.key", content(d.t, d.path("server.key")), 0o604)
			d.pair(pki.Leaf{CN: "localhost"})
		}, "", []string{"chain_not_verified", "key_mode", "san_missing"}},
		{"clients without certificates", func(d *deployment) { d.vars["TLS_CLIENT_AUTH"] = "optional" }, "", []string{"client_auth"}},
		{"clients never with certificates", func(d *deployment) {
			d.vars["TLS_CLIENT_AUTH"] = "none"
			delete(d.vars, "TLS_CRL_FILE")
		}, "", []string{"client_auth"}},
		{"metrics nobody can read", func(d *deployment) { d.vars["ADMIN_LISTEN"] = ":9380" }, "", []string{"admin_without_token"}},
		{"no denied commands", func(d *deployment) { d.vars["DENY_COMMANDS"] = "none" }, "", []string{"no_denied_commands"}},
		{"clear text to another machine", func(d *deployment) { d.vars["BACKEND_URL"] = "redis://198.51.100.7:6379" }, "", []string{"backend_in_clear"}},
		{"TLS to another machine", func(d *deployment) { d.vars["BACKEND_URL"] = "rediss://198.51.100.7:6379" }, "", nil},
		{"what is shown to the backend ends soon and its key is everybody's", func(d *deployment) {
			server, key := content(d.t, d.path("server.crt")), content(d.t, d.path("server.key"))
			ca := d.pair(pki.Leaf{})
			cert, clientKey, err := ca.Issue(pki.Leaf{CN: "proxy", Client: true, NotBefore: time.Now().Add(-1500 * time.Hour), NotAfter: time.Now().Add(700 * time.Hour)})
			if err != nil {
				d.t.Fatal(err)
			}
			write(d.t, d.path("server.crt"), []byte(server))
			write(d.t, d.path("server.key"), []byte(key))
			d.vars["BACKEND_URL"] = "rediss://127.0.0.1:1"
			d.vars["BACKEND_CERT_FILE"] = d.file("proxy.crt", string(cert), 0o644)
			d.vars["BACKEND_KEY_FILE"] = d.file("proxy.key", string(clientKey), 0o604)
		}, "", []string{"expires_soon", "key_mode"}},
		{"a file of the future", func(d *deployment) { d.touch("ca.crt", time.Hour) }, "", []string{"clock_behind"}},
		{"a file of the future for the backend", func(d *deployment) {
			d.vars["BACKEND_URL"], d.vars["BACKEND_CA_FILE"] = "rediss://127.0.0.1:1", d.file("backend.crt", content(d.t, d.path("ca.crt")), 0o644)
			d.touch("backend.crt", time.Hour)
		}, "", []string{"clock_behind"}},
		{"two at once", func(d *deployment) {
			d.chmod("server.key", 0o666)
			d.vars["TLS_CLIENT_AUTH"] = "optional"
			d.vars["DENY_COMMANDS"] = "none"
		}, "", []string{"client_auth", "key_mode", "no_denied_commands"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeployment(t)
			c.setup(d)
			r := d.wantFound(c.want, "--no-backend", "--host", c.hosts)
			bySeverity := func(a, b certs.Finding) int { return a.Severity.Compare(b.Severity) }
			if !slices.IsSortedFunc(r.Findings, bySeverity) {
				t.Errorf("got %+v, want errors first, notes last", r.Findings)
			}
		})
	}
}

func TestCheckSaysWhatFewDescriptorsLowered(t *testing.T) {
	d := newDeployment(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	delete(d.vars, "MAX_CONNECTIONS")
	cmd := exec.Command("sh", "-c", `ulimit -n 300 && exec "$0" check --no-backend`, path)
	cmd.Env = append(environ(), d.env()...)
	p := launch(t, cmd)
	p.wantExit(exitOK) // nobody has to do anything
	wantParts(t, p.stdout.String(), "ok: ", "note     DRAGONTLS_MAX_CONNECTIONS: lowered from 10000 to 93: the limit of open files is 300", "ulimit -n", "[descriptor_limit]")
	if strings.Count(p.stdout.String(), "\n") != 2 {
		t.Errorf("got %s", &p.stdout)
	}
}

func TestCheckPrintsABadConfigurationAsServeDoes(t *testing.T) {
	for _, c := range []struct {
		name    string
		setup   func(d *deployment)
		id      string
		subject string // suffix
	}{
		{"settings", func(d *deployment) { d.vars["LISTEN"], d.vars["BACKEND_URL"] = "nonsense", "redis://:"+marker+"@x/1" }, "configuration", "DRAGONTLS_LISTEN"},
		{"no key", func(d *deployment) { os.Remove(d.path("server.key")) }, "configuration", "DRAGONTLS_TLS_KEY_FILE"},
		{"another key", func(d *deployment) { d.vars["TLS_KEY_FILE"] = d.path("client.key") }, "mismatch", "server.crt"},
		{"expired", func(d *deployment) {
			d.pair(pki.Leaf{DNS: []string{"x"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
		}, "expired", "server.crt"},
		{"of tomorrow", func(d *deployment) { d.pair(pki.Leaf{DNS: []string{"x"}, NotBefore: time.Now().Add(24 * time.Hour)}) }, "not_yet_valid", "server.crt"},
		{"wrong order", func(d *deployment) {
			ca := d.pair(pki.Leaf{DNS: []string{"x"}})
			d.file("server.crt", string(ca.PEM())+content(d.t, d.path("server.crt")), 0o644)
		}, "chain", "server.crt"},
		{"client CA that is none", func(d *deployment) { d.vars["TLS_CLIENT_CA_FILE"] = d.path("client.crt") }, "no_ca", "client.crt"},
		{"backend's CA that is none", func(d *deployment) {
			d.vars["BACKEND_URL"], d.vars["BACKEND_CA_FILE"] = "rediss://127.0.0.1:1", d.path("client.crt")
		}, "no_ca", "client.crt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDeployment(t)
			c.setup(d)
			r, text := d.check("--no-backend")
			served := invoke(append(d.env(), "DRAGONTLS_LOG_FORMAT=console"), "serve")
			if text.code != served.code || !strings.HasSuffix(served.stderr, text.stderr) || text.code != exitConfig || text.stdout != "" {
				t.Errorf("got %+v, serve says %+v", text, served)
			}
			i := slices.IndexFunc(r.Findings, func(f certs.Finding) bool { return f.ID == c.id })
			if r.Result != resultBad || i < 0 || !strings.HasSuffix(r.Findings[i].Subject, c.subject) || r.Findings[i].Severity != certs.SeverityError {
				t.Fatalf("got %+v, want %s of %s", r, c.id, c.subject)
			}
			for _, f := range r.Findings {
				if !strings.Contains(text.stderr, f.Message) || !strings.Contains(text.stderr, f.Cure) || f.Cure != "" && strings.Contains(f.Message, f.Cure) || strings.Contains(f.Message+f.Cure, marker) {
					t.Errorf("got %+v, serve says\n%s", f, text.stderr)
				}
			}
		})
	}
}

func TestNotesOfTheConfigurationAreFindings(t *testing.T) {
	for kind := config.NoteDescriptors; kind <= config.NoteNotDenied; kind++ {
		if f := noteKinds[kind]; f.ID == "" || f.Severity == "" || f.Cure == "" {
			t.Errorf("%d: %+v", kind, f)
		}
	}
	d := newDeployment(t)
	d.vars["TLS_CRL_EXPIRED"], d.vars["DENY_COMMANDS"] = "warn", "none"
	c, err := config.Load(d.env())
	if err != nil {
		t.Fatal(err)
	}
	found := noteFindings(append(c.Notes, config.Note{Kind: config.NoteMemory, Text: "memory of this machine is unknown"}))
	want := []string{"crl_not_enforced DRAGONTLS_TLS_CRL_EXPIRED", "no_denied_commands DRAGONTLS_DENY_COMMANDS", "memory_limit configuration"}
	var got []string
	for _, f := range found {
		got = append(got, f.ID+" "+f.Subject)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCheckTakesTheCureOutOfAFault(t *testing.T) {
	d := newDeployment(t)
	d.vars["LISTENN"] = ":1"
	r, _ := d.check()
	want := certs.Finding{ID: "configuration", Severity: certs.SeverityError, Subject: "DRAGONTLS_LISTENN",
		Message: "DRAGONTLS_LISTENN (hidden): no variable of this version", Cure: "did you mean DRAGONTLS_LISTEN?"}
	if len(r.Findings) != 1 || r.Findings[0] != want {
		t.Errorf("got %+v, want %+v", r.Findings, want)
	}
}

func TestCheckMisuse(t *testing.T) {
	for args, want := range map[string]string{
		"now":                   `unknown argument "now"`,
		"--nope":                "nope",
		"--host a:6380":         "without a port",
		"--host a,,b":           "neither a DNS name",
		"--host https://a":      "neither a DNS name",
		"--no-backend --json 1": `unknown argument "1"`,
	} {
		got := invoke(nil, append([]string{"check"}, strings.Fields(args)...)...)
		if got.code != exitConfig || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, "usage: dragontls check") || got.stdout != "" {
			t.Errorf("%s: got %+v, want %q", args, got, want)
		}
	}
	got := invoke(nil, "check", "--help")
	if got.code != exitOK || !strings.HasPrefix(got.stdout, "usage: dragontls check [--host") || !strings.Contains(got.stdout, "Exit codes: 0 nothing") || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
}

func TestCheckDescribesAnUnreadableKey(t *testing.T) {
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
	cmd := exec.Command(path, "check", "--json")
	cmd.Dir, cmd.Env = dir, environ(proxyVars("redis://127.0.0.1:1")...)
	var p *process
	if os.Getuid() == 0 { // root reads everything
		for _, d := range []string{workDir, dir} {
			if err := os.Chmod(d, 0o711); err != nil {
				t.Fatal(err)
			}
		}
		p = launchAs(t, cmd, 65534)
	} else {
		if err := os.Chmod(filepath.Join(dir, "pki", "server.key"), 0); err != nil {
			t.Fatal(err)
		}
		p = launch(t, cmd)
	}
	p.wantExit(exitConfig)
	var r report
	if err := json.Unmarshal([]byte(p.stdout.String()), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 1 || r.Findings[0].Subject != "DRAGONTLS_TLS_KEY_FILE" || !strings.Contains(r.Findings[0].Message, "permission denied") {
		t.Errorf("got %+v", r)
	}
}

func TestServeWarnsOfWhatCheckFinds(t *testing.T) {
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	backend := redisServer(t, "--requirepass", "p").url()
	vars := append(proxyVars(backend), "TLS_CRL_FILE=pki/ca.crl")
	good := servingIn(t, dir, vars...)
	if found := good.logged("deployment finding"); len(found) > 0 {
		t.Errorf("got %v of a good deployment", found)
	}
	good.wantEnd()
	key := filepath.Join(dir, "pki", "server.key")
	tomorrow := time.Now().Add(24 * time.Hour)
	if err := errors.Join(os.Chmod(key, 0o644), os.Chtimes(key, tomorrow, tomorrow)); err != nil {
		t.Fatal(err)
	}
	bad := servingIn(t, dir, vars...)
	found := bad.logged("deployment finding")
	if len(found) != 2 || found[1]["id"] != "clock_behind" || found[1]["level"] != "warn" || found[1]["subject"] != "pki/server.key" {
		t.Fatalf("got %v", found)
	}
	if found[0]["id"] != "key_mode" || found[0]["level"] != "error" || found[0]["subject"] != "pki/server.key" ||
		!strings.Contains(found[0]["cure"].(string), "chmod") || found[0]["finding"] == "" || found[0]["severity"] != nil {
		t.Errorf("got %v", found)
	}
	bad.wantEnd()
}
