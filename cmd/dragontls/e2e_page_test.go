//go:build unix

package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/admin/statuspage"
)

// as is a client of a CA of the test's own.
func (p *instance) as(ca *pki.CA, cn string) *tls.Config {
	p.t.Helper()
	made := issueLeaf(p.t, ca, pki.Leaf{CN: cn, Client: true})
	pair, err := tls.X509KeyPair(made.cert, made.key)
	if err != nil {
		p.t.Fatal(err)
	}
	c := p.clientTLS()
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return c
}

// The page works in a browser: see testdata/node/page.js.
func TestStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	need(t, "node", "chromium")
	if found, _ := filepath.Glob(nodeDir + "/node_modules/playwright-core"); len(found) == 0 {
		missing(t, "playwright-core is not installed: run npm ci in cmd/dragontls/"+nodeDir)
	}
	ca := newCA(t, "page")
	p := ownCA(t, ca, redisServer(t).url()).wantReady()
	for i := range 60 {
		l := p.live(p.clientTLS())
		for range i % 3 {
			l.ping()
		}
	}
	p.live(p.as(ca, "<img src=x onerror=pwned=1>"))
	wantRefused(t, p, p.as(newCA(t, "another"), "stranger"), "a client of another CA")
	eventually(t, "charts and latencies are there", func() bool { return len(p.status("").Latency) > 0 })
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "page.js")
	cmd.Dir = nodeDir
	cmd.Env = append(environ(), "URL=http://"+p.admin, "CHROMIUM="+browser, "PORT="+p.port(), "HOME="+t.TempDir(),
		"CA="+p.file("ca.crt"), "CERT="+p.file("client.crt"), "KEY="+p.file("client.key"), "SCREENSHOTS="+os.Getenv("SCREENSHOTS"))
	c := launch(t, cmd)
	select {
	case <-c.ended:
	case <-time.After(2 * patience):
		err = errors.New("it hangs")
	}
	if err != nil || c.stdout.String() != "page ok\n" {
		t.Errorf("page.js: %v\n%s%s", err, &c.stdout, &c.stderr)
	}
	p.wantEnd()
}

// status is what /status.json says to a query.
func (p *instance) status(query string) (s statuspage.Status) {
	p.t.Helper()
	code, body := p.get("/status.json" + query)
	if err := json.Unmarshal([]byte(body), &s); code != http.StatusOK || err != nil {
		p.t.Fatalf("/status.json: %d %v %s", code, err, body)
	}
	return s
}

// event returns the latest event of a kind and reason, once there is one.
func (p *instance) event(kind, reason string) (found statuspage.Event) {
	p.t.Helper()
	eventually(p.t, kind+" "+reason, func() bool {
		all := p.status("").Events
		i := slices.IndexFunc(all, func(e statuspage.Event) bool { return e.Kind == kind && e.Reason == reason })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// problem returns the problem that says what, once there is one.
func (p *instance) problem(what string) (found statuspage.Problem) {
	p.t.Helper()
	eventually(p.t, what, func() bool {
		all := p.status("").Problems
		i := slices.IndexFunc(all, func(one statuspage.Problem) bool { return strings.Contains(one.What, what) })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// An operator reads in the status what went wrong, why, and what to do, from a refused client to a backend that is gone.
func TestStatusTellsWhatIsWrongAndTheCure(t *testing.T) {
	inBothModes(t, testStatusTellsWhatIsWrongAndTheCure)
}

func testStatusTellsWhatIsWrongAndTheCure(t *testing.T, mode string) {
	ca, allow := newCA(t, "status"), filepath.Join(t.TempDir(), "allow")
	write(t, allow, []byte("cn:*\n"))
	r := redisOnTCP(t)
	p := ownCA(t, ca, r.url(), "BACKEND_MODE="+mode, "ALLOW_FILE="+allow, "TLS_RELOAD_INTERVAL=100ms", "MAX_CONNECTIONS=5").wantReady()
	if s := p.status(""); s.Schema != 1 || !s.Ready || len(s.Problems) != 0 || len(s.Events) != 0 || s.Backend.URL != r.url() || s.Backend.Address != r.address.String() ||
		s.Backend.Since == nil || s.Backend.PingSeconds <= 0 {
		t.Errorf("at the start: %+v", s)
	}

	wantRefused(t, p, p.as(newCA(t, "another"), "stranger"), "a client of another CA")
	if e := p.event(statuspage.EventRefused, "unknown_ca"); e.Client != "CN=stranger" || e.Address != "127.0.0.1" || e.Count != 1 || e.Cause == "" || !strings.Contains(e.Cure, "add the CA") {
		t.Errorf("got %+v", e)
	}

	web := p.live(p.as(ca, "web"))
	for range 4 {
		p.live(p.as(ca, "worker"))
	}
	if full := p.problem("MAX_CONNECTIONS is reached (5)"); full.Severity != "warning" || full.Cure != "raise it, or run more replicas" {
		t.Errorf("got %+v", full)
	}
	if s := p.status("?identity=web").Sessions; s.Total != 5 || s.Matched != 1 || s.List[0].Identity != "cn:web" || s.List[0].Subject != "CN=web" ||
		s.List[0].Address != web.LocalAddr().String() || s.List[0].TLSVersion != "1.3" || s.List[0].Commands != 1 {
		t.Errorf("got %+v", s)
	}

	web.watch()
	write(t, allow, []byte("cn:worker\n"))
	wantGone(t, time.Now(), web)
	if e := p.event(statuspage.EventClosed, "not_allowed"); e.Client != "cn:web" || e.Cause == "" || e.Cure == "" {
		t.Errorf("got %+v", e)
	}
	write(t, allow, []byte("cm:worker\n"))
	if e := p.event(statuspage.EventReload, "allow"); e.File != allow || !strings.Contains(e.Error, "cm:worker") {
		t.Errorf("got %+v", e)
	}
	if held := p.problem("allow of " + allow + " has been held back since"); held.Severity != "warning" || held.Cure == "" {
		t.Errorf("got %+v", held)
	}

	r.kill()
	if gone := p.problem("nobody listens at the address of the backend"); gone.Cure != "start the backend, or correct host and port in BACKEND_URL" {
		t.Errorf("got %+v", gone)
	}
	p.wantEnd()
}

// A certificate that ends soon is named with its file, what is left of it, and the cure.
func TestStatusTellsWhatEnds(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "ends")
	dir := ownPKI(t, ca)
	leaf := serverLeaf()
	leaf.NotBefore, leaf.NotAfter = time.Now().Add(-60*24*time.Hour), time.Now().Add(47*time.Hour)
	made := issueLeaf(t, ca, leaf)
	write(t, filepath.Join(dir, "pki", "server.crt"), made.cert)
	write(t, filepath.Join(dir, "pki", "server.key"), made.key)
	p := servingIn(t, dir, proxyVars(redisServer(t).url())...)
	ends := p.problem(`of "CN=localhost" in pki/server.crt ends in 46 hours`)
	if ends.Severity != "error" || !strings.Contains(ends.Cure, "renew it") {
		t.Errorf("got %+v", ends)
	}
	if c := p.status("").Certificates[0]; c.Role != "server" || c.DaysLeft > 2 || c.DaysLeft < 1.9 || c.Serial != made.serial {
		t.Errorf("got %+v", c)
	}
	p.wantEnd()
}

// Five seconds after the start there are rates, and a minute's latency.
func TestStatusHasRates(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode)
		l := p.live(p.clientTLS())
		eventually(t, "rates of commands", func() bool {
			l.ping()
			s := p.status("")
			return s.Rates != nil && s.Rates.Commands > 0 && len(s.History.Commands) > 0 && len(s.Latency) > 0 && s.Latency[0].P50 > 0
		})
		p.wantEnd()
	})
}
