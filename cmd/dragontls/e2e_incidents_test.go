//go:build unix

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dragontls/certs/pki"
	"dragontls/proxy/backend"
	"dragontls/proxy/proxytest"
)

// incident is a backend that fails, and what must be said of it.
type incident struct {
	name    string
	url     func(t *testing.T, w *incidentFiles) string
	vars    []string
	reason  string // of the fault: what /readyz says after backend_, and reason in the log
	finding string // of check
	says    string // the finding's message, or its cure, holds it
	client  string // how the reply to a PING begins; empty: nobody asks
}

// incidentFiles are what the incidents of one test share.
type incidentFiles struct {
	dir  string // holds pki, and the users file with its password
	leaf tls.Certificate
}

func newIncidentFiles(t *testing.T) *incidentFiles {
	t.Helper()
	w := &incidentFiles{dir: t.TempDir()}
	if err := pki.Init(pki.Options{Dir: filepath.Join(w.dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.dir, "pass"), []byte(marker))
	write(t, filepath.Join(w.dir, "users.yaml"), []byte("users:\n  - match: [\"cn:client\"]\n    user: web\n    password_file: pass\n"))
	var err error
	if w.leaf, err = tls.LoadX509KeyPair(w.path("server.crt"), w.path("server.key")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *incidentFiles) path(name string) string { return filepath.Join(w.dir, "pki", name) }

// securePort is the TLS port of a redis-server, whose port in clear is not used.
func securePort(t *testing.T, w *incidentFiles) string {
	at := ownAddress()
	redisServer(t, "--bind", at.Addr().String(), "--tls-port", fmt.Sprint(at.Port()), "--tls-cert-file", w.path("server.crt"),
		"--tls-key-file", w.path("server.key"), "--tls-ca-cert-file", w.path("ca.crt"))
	return at.String()
}

// playedDragonfly returns the address of one that lives as long as the test.
func playedDragonfly(t *testing.T, o proxytest.Options) string {
	t.Helper()
	d, err := proxytest.NewDragonfly(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d.Addr()
}

// silentServer takes connections and answers nothing.
func silentServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String() // the kernel takes them
}

const textNotSent = "-LOADING dragontls: backend unavailable, the command was not sent"

var incidents = []incident{
	{"redis:// at the TLS port of redis-server", func(t *testing.T, w *incidentFiles) string { return "redis://" + securePort(t, w) }, nil,
		"wants_tls", "backend_wants_tls", "say rediss://", textNotSent},
	{"the same with a password", func(t *testing.T, w *incidentFiles) string { return "redis://" + securePort(t, w) }, []string{"BACKEND_PASSWORD=" + marker},
		"wants_tls", "backend_wants_tls", "say rediss://", textNotSent},
	{"redis:// at the TLS port of Dragonfly", func(t *testing.T, w *incidentFiles) string {
		return "redis://" + playedDragonfly(t, proxytest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{w.leaf}}})
	}, nil, "wants_tls", "backend_wants_tls", "say rediss://", textNotSent},
	{"the same with a password ", func(t *testing.T, w *incidentFiles) string {
		return "redis://" + playedDragonfly(t, proxytest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{w.leaf}}})
	}, []string{"BACKEND_PASSWORD=" + marker}, "wants_tls", "backend_wants_tls", "say rediss://", textNotSent},
	{"rediss:// at the port in clear of redis-server", func(t *testing.T, _ *incidentFiles) string {
		return strings.Replace(redisOnTCP(t).url(), "redis://", "rediss://", 1)
	}, []string{"BACKEND_CA_FILE=pki/ca.crt", "BACKEND_CONNECT_TIMEOUT=1s"}, "no_tls", "backend_no_tls", "name its TLS port", textNotSent},
	{"rediss:// at the port in clear of Dragonfly", func(t *testing.T, _ *incidentFiles) string {
		return "rediss://" + playedDragonfly(t, proxytest.Options{})
	}, []string{"BACKEND_CA_FILE=pki/ca.crt", "BACKEND_CONNECT_TIMEOUT=1s"}, "no_tls", "backend_no_tls", "name its TLS port", textNotSent},
	{"a wrong password", func(t *testing.T, _ *incidentFiles) string { return redisOnTCP(t, "--requirepass", "other").url() },
		[]string{"BACKEND_PASSWORD=" + marker}, "auth", "backend_credentials", "BACKEND_PASSWORD", "-ERR dragontls: the backend refused the proxy's credentials"},
	{"a wrong password for Dragonfly", func(t *testing.T, _ *incidentFiles) string {
		return "redis://" + playedDragonfly(t, proxytest.Options{RequirePass: "other"})
	}, []string{"BACKEND_PASSWORD=" + marker}, "auth", "backend_credentials", "BACKEND_PASSWORD", ""},
	{"a password where there is none", func(t *testing.T, _ *incidentFiles) string { return redisOnTCP(t).url() },
		[]string{"BACKEND_PASSWORD=" + marker}, "no_password", "backend_no_password", "requirepass", ""},
	{"a name that does not resolve", func(*testing.T, *incidentFiles) string { return "redis://no-such-host.invalid:6379" }, nil,
		"name", "backend_unreachable", "the name of the backend cannot be resolved", ""},
	{"nobody there", func(*testing.T, *incidentFiles) string { return "redis://" + ownAddress().String() }, nil,
		"refused", "backend_unreachable", "nobody listens", ""},
	{"no socket there", func(t *testing.T, w *incidentFiles) string { return "unix://" + filepath.Join(w.dir, "none") }, nil,
		"refused", "backend_unreachable", "nobody listens", ""},
	{"silence", func(t *testing.T, _ *incidentFiles) string { return "redis://" + silentServer(t) },
		[]string{"BACKEND_CONNECT_TIMEOUT=1s", "BACKEND_PASSWORD=" + marker}, "silent", "backend_unreachable", "does not answer", ""},
	{"a certificate of another CA", func(t *testing.T, w *incidentFiles) string { return "rediss://" + securePort(t, w) }, []string{"BACKEND_SERVER_NAME=localhost"},
		"certificate", "backend_tls", "BACKEND_CA_FILE", textNotSent},
	{"no client certificate", func(t *testing.T, w *incidentFiles) string { return "rediss://" + securePort(t, w) },
		[]string{"BACKEND_CA_FILE=pki/ca.crt", "BACKEND_SERVER_NAME=localhost"}, "tls", "backend_tls", "BACKEND_CERT_FILE", ""},
	{"protected mode", func(t *testing.T, _ *incidentFiles) string {
		return "redis://" + scripted(t, nil, map[string]string{"PING": "-DENIED Redis is running in protected mode because", "CLIENT": "-DENIED Redis is running"})
	}, nil, "protected", "backend_no_password", "protected mode", textNotSent},
	{"an open backend under a users file", func(t *testing.T, _ *incidentFiles) string { return redisOnTCP(t).url() },
		[]string{"USERS_FILE=users.yaml"}, "unauthenticated_access", "backend_no_password", "requirepass", "-ERR dragontls: the backend lets connections in"},
	{"a web server", func(t *testing.T, _ *incidentFiles) string {
		return "redis://" + scripted(t, nil, map[string]string{"PING": "HTTP/1.1 400 Bad Request", "CLIENT": "HTTP/1.1 400 Bad Request"})
	}, nil, "not_resp", "backend_not_resp", "RESP", ""},
	{"it closes", func(t *testing.T, _ *incidentFiles) string { return "redis://" + scripted(t, nil, nil) }, nil,
		"closed", "backend_unreachable", "closes the connection", ""},
	{"it is full", func(t *testing.T, _ *incidentFiles) string {
		return "redis://" + playedDragonfly(t, proxytest.Options{MaxClients: -1})
	}, nil, "max_clients", "backend_max_clients", "maxclients", "-ERR max number of clients reached"},
}

// What is wrong with a backend is said in the same words by the log, which names the backend, by /readyz and by check; and a client is
// never told what the backend said to the proxy about TLS.
func TestIncidentsNameTheBackendAndTheCure(t *testing.T) {
	need(t, "redis-server")
	for _, c := range incidents {
		t.Run(c.name, func(t *testing.T) {
			if c.client == "" { // the prober is the same in both modes
				t.Parallel()
				c.run(t, "shared")
				return
			}
			inBothModes(t, func(t *testing.T, mode string) { c.run(t, mode) })
		})
	}
}

func (c incident) run(t *testing.T, mode string) {
	w := newIncidentFiles(t)
	url := c.url(t, w)
	f := faultNamed(t, c.reason)
	p := servingIn(t, w.dir, append(append(proxyVars(url), "BACKEND_MODE="+mode), c.vars...)...)

	line := p.wantLog(f.Line) // not always at the first try: a backend that refuses may reset the connection before its alert is read
	if line["level"] != "error" || line["backend"] != url || line["reason"] != c.reason || line["cure"] != f.Cure || !(line["tries"].(float64) >= 1) || line["since"] == nil || line["error"] == "" {
		t.Errorf("logged %v", line)
	}
	p.wantNotReady("backend_" + c.reason)
	code, text := p.get("/readyz")
	for _, want := range []string{f.Line, f.Cure, url, "since ", "tries: "} {
		if code != http.StatusServiceUnavailable || !strings.Contains(text, want) {
			t.Errorf("/readyz: %d %q, want %q", code, text, want)
		}
	}
	if c.client != "" {
		client := session(t, p)
		io.WriteString(client, "PING\r\n")
		if got, err := io.ReadAll(client); !strings.HasPrefix(string(got), c.client) {
			t.Errorf("a client got %q (%v), want %q", got, err, c.client)
		}
	}
	wantNoMarker(t, p)
	p.wantEnd()

	out, _ := dragontlsOutput(t, w.dir, []string{"check"}, append(proxyVars(url), c.vars...))
	findings := slices.DeleteFunc(strings.Split(out, "\n"), func(row string) bool { return !strings.Contains(row, "["+c.finding+"]") })
	if len(findings) != 1 || !strings.Contains(findings[0], c.says) || strings.Contains(out, marker) {
		t.Errorf("check says:\n%swant %s with %q", out, c.finding, c.says)
	}
	if c.finding != "backend_no_password" && strings.Contains(out, "[backend_no_password]") {
		t.Errorf("check says:\n%s", out)
	}
}

func faultNamed(t *testing.T, reason string) backend.Fault {
	t.Helper()
	all := backend.Faults()
	i := slices.IndexFunc(all, func(f backend.Fault) bool { return f.Reason == reason })
	if i < 0 {
		t.Fatalf("no fault %s", reason)
	}
	return all[i]
}

// dragontlsOutput runs a command of the binary to its end.
func dragontlsOutput(t *testing.T, dir string, args, vars []string) (stdout string, code int) {
	t.Helper()
	p := dragontls(t, dir, args, vars)
	<-p.ended
	return p.stdout.String(), p.cmd.ProcessState.ExitCode()
}

// A backend that is loading is up: /readyz is ready, and says so.
func TestALoadingBackendIsNamed(t *testing.T) {
	t.Parallel()
	d, err := proxytest.NewDragonfly(proxytest.Options{Loading: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	p := serving(t, "redis://"+d.Addr()).wantReady()
	f := faultNamed(t, "loading")
	if line := p.wantLog(f.Line); line["level"] != "warn" || line["backend"] != "redis://"+d.Addr() {
		t.Errorf("logged %v", line)
	}
	if _, text := p.get("/readyz"); !strings.HasPrefix(text, "ready\nbackend_loading\n") || !strings.Contains(text, f.Line) {
		t.Errorf("/readyz: %q", text)
	}
	d.SetLoading(false)
	if line := p.wantLog("backend answers"); line["level"] != "info" || line["lasted"] == nil {
		t.Errorf("logged %v", line)
	}
	eventually(t, "nothing more is said", func() bool { _, text := p.get("/readyz"); return text == "ready\n" })
	p.wantEnd()
}

// An outage has a line at its begin, and one at its end that says how long it was. That the backend closes the prober's connection is none.
func TestAnOutageHasABeginAndAnEnd(t *testing.T) {
	t.Parallel()
	need(t, "redis-cli")
	r := redisOnTCP(t, "--requirepass", "theirs")
	p := serving(t, r.url()).wantReady()
	if line := p.wantLog("backend answers"); line["backend"] != r.url() || line["note"] == nil {
		t.Errorf("logged %v: clients authenticate themselves, which is worth a note", line)
	}
	r.password = "theirs"
	r.observe("CLIENT", "KILL", "TYPE", "normal")
	dials := p.metrics().sum("backend_dials_total")
	eventually(t, "the prober is back", func() bool { return p.metrics().sum("backend_dials_total") > dials })
	if text := p.stderr.String(); strings.Contains(text, `"level":"error"`) {
		t.Errorf("logged:\n%s", text)
	}
	r.kill()
	p.wantLog(faultNamed(t, "refused").Line)
	p.wantNotReady("backend_refused")
	r.start(t)
	eventually(t, "it answers again", func() bool { return len(p.logged("backend answers")) == 2 })
	line := p.logged("backend answers")[1]
	if line["backend"] != r.url() || line["lasted"] == nil || line["tries"] == nil || line["since"] == nil {
		t.Errorf("logged %v", line)
	}
	if n := strings.Count(p.stderr.String(), `"reason":"refused"`); n < 1 || n > 3 {
		t.Errorf("%d lines about one outage", n)
	}
	p.wantEnd()
}

// A backend that stands still has a line long before it counts as lost.
func TestABackendThatStandsStillIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	r := redisOnTCP(t)
	p := serving(t, r.url(), "BACKEND_CONNECT_TIMEOUT=100ms").wantReady()
	r.signal(syscall.SIGSTOP)
	line := p.wantLog("the backend does not answer a PING yet")
	if line["level"] != "warn" || line["backend"] != r.url() || line["reason"] != "silent" || line["cure"] == nil {
		t.Errorf("logged %v", line)
	}
	f := faultNamed(t, "silent")
	if line := p.wantLog(f.Line); line["level"] != "error" || line["backend"] != r.url() {
		t.Errorf("logged %v", line)
	}
	p.wantNotReady("backend_silent")
	r.signal(syscall.SIGCONT)
	p.wantReady()
	p.wantEnd()
}

// The manual has a row for each way in which a backend fails, with the words of the log, and no other rows.
func TestFaultsOfTheBackendAreDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../config/docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "<!-- backend faults -->\n")
	table, _, found := strings.Cut(rest, "<!-- /backend faults -->")
	if !found {
		t.Fatal("the manual has no table of the faults of the backend")
	}
	documented := map[string][]string{}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) != 6 {
			t.Errorf("got %d cells in %s", len(cells), row)
			continue
		}
		reason := strings.Trim(cells[1], " `")
		if documented[reason] != nil {
			t.Errorf("%s has two rows", reason)
		}
		documented[reason] = cells
	}
	for _, f := range backend.Faults() {
		cells := documented[f.Reason]
		delete(documented, f.Reason)
		if cells == nil || strings.TrimSpace(cells[2]) != f.Line || strings.TrimSpace(cells[3]) == "" || strings.TrimSpace(cells[4]) != strings.ReplaceAll(f.Cure, "DRAGONTLS_", "") {
			t.Errorf("want a row for %s that says %q and %q, got %q", f.Reason, f.Line, f.Cure, cells)
		}
	}
	delete(documented, "reason")
	delete(documented, "---")
	for reason := range documented {
		t.Errorf("%s is documented, and no fault", reason)
	}
}
