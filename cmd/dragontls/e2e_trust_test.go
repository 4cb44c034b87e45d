//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/admin/statuspage"
)

// Who may connect changes while clients are connected: those who lost trust go, and nobody else notices.

// tlsAs is the configuration of another client of the PKI.
func (p *instance) tlsAs(name string, version uint16) *tls.Config {
	p.t.Helper()
	c := p.clientTLS()
	pair, err := tls.LoadX509KeyPair(p.file(name+".crt"), p.file(name+".key"))
	if err != nil {
		p.t.Fatal(err)
	}
	c.Certificates, c.MinVersion, c.MaxVersion = []tls.Certificate{pair}, version, version
	c.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return c
}

// live is a session that stays.
type live struct {
	*tls.Conn
	t    testing.TB
	r    *bufio.Reader
	gone chan time.Time // when it ended, once; see watch
}

func (p *instance) live(config *tls.Config) *live {
	p.t.Helper()
	raw, err := net.DialTimeout("tcp", p.addr, patience)
	if err != nil {
		p.t.Fatal(err)
	}
	l := newLive(p.t, tls.Client(raw, config))
	p.t.Cleanup(func() { l.Close() })
	l.ping()
	return l
}

func newLive(t testing.TB, conn *tls.Conn) *live {
	return &live{Conn: conn, t: t, r: bufio.NewReader(conn), gone: make(chan time.Time, 1)}
}

func (l *live) ping() {
	l.t.Helper()
	l.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(l, "*1\r\n$4\r\nPING\r\n"); err != nil {
		l.t.Errorf("live session: %v", err)
		return
	}
	if line, err := l.r.ReadString('\n'); line != "+PONG\r\n" {
		l.t.Errorf("live session: %q, %v", line, err)
	}
}

// watch notes when the session ends.
func (l *live) watch() {
	go func() { // ends with the connection
		l.SetDeadline(time.Now().Add(patience))
		if _, err := l.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
			l.gone <- time.Now()
		}
		close(l.gone)
	}()
}

// wantGone waits for the end of all and returns how long after since the last one went.
func wantGone(t testing.TB, since time.Time, all ...*live) time.Duration {
	t.Helper()
	var worst time.Duration
	for i, l := range all {
		at, ok := <-l.gone
		if !ok {
			t.Errorf("session %d is still there", i+1)
			continue
		}
		worst = max(worst, at.Sub(since))
	}
	return worst
}

func wantRefused(t testing.TB, p *instance, config *tls.Config, what string) {
	t.Helper()
	if _, err := handshake(p.addr, config); err == nil {
		t.Errorf("%s: let in", what)
	}
}

// resumable makes sure that config holds a ticket that is good.
func resumable(t testing.TB, p *instance, config *tls.Config) {
	t.Helper()
	for range 2 {
		if _, err := handshake(p.addr, config); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := handshake(p.addr, config); err != nil || !st.DidResume {
		t.Fatalf("no resumption (%v)", err)
	}
}

var bothVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func TestRevokedClientIsOutAtOnce(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url(), "TLS_CRL_FILE=pki/ca.crl", "TLS_RELOAD_INTERVAL=1h", "DRAIN_TIMEOUT=10s").wantReady()
	for _, name := range []string{"victim", "other"} {
		dragontls(t, p.dir, []string{"pki", "client", name}, nil).wantExit(exitOK)
	}
	var victims, others []*live
	var resuming []*tls.Config
	for _, v := range bothVersions {
		c := p.tlsAs("victim", v)
		resumable(t, p, c)
		resuming = append(resuming, c)
		victims = append(victims, p.live(p.tlsAs("victim", v)), p.live(c))
		others = append(others, p.live(p.tlsAs("other", v)))
	}
	clients := crowd(t, p, p.serial("server"), load{})
	eventually(t, "the load runs", func() bool { return clients.rounds.Load() > 0 && clients.resumed.Load() > 10 })
	for _, l := range victims {
		l.watch()
	}
	dragontls(t, p.dir, []string{"pki", "revoke", "victim"}, nil).wantExit(exitOK)
	info, err := os.Stat(p.file("ca.crl"))
	if err != nil {
		t.Fatal(err)
	}
	worst := wantGone(t, info.ModTime(), victims...)
	t.Logf("the last live session of the revoked client ended %d ms after the CRL was written", worst.Milliseconds())
	for i, v := range bothVersions {
		wantRefused(t, p, resuming[i], tls.VersionName(v)+", with a ticket")
		wantRefused(t, p, p.tlsAs("victim", v), tls.VersionName(v))
		others[i].ping()
		if _, err := handshake(p.addr, p.tlsAs("other", v)); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
	p.wantMetric(float64(len(victims)), "sessions_closed_total", "reason", "certificate_revoked")
	p.wantMetric(4, "handshakes_total", "reason", "certificate_revoked")
	clients.stop(t, 1, worst)
	p.wantEnd()
}

// serial is that of a certificate in the PKI.
func (p *instance) serial(name string) string {
	p.t.Helper()
	pair, err := tls.LoadX509KeyPair(p.file(name+".crt"), p.file(name+".key"))
	if err != nil {
		p.t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.Text(16)
}

func TestReplacedCA(t *testing.T) {
	t.Parallel()
	old, next := newCA(t, "old"), newCA(t, "next")
	p := ownCA(t, old, redisServer(t).url(), "TLS_RELOAD_INTERVAL=1h").wantReady()
	cert, key := pair(t, next, pki.Leaf{CN: "new", Client: true})
	write(t, p.file("new.crt"), []byte(read(t, cert)))
	write(t, p.file("new.key"), []byte(read(t, key)))
	trust := filepath.Join(p.dir, "roots.crt") // what verifies the server, of the old CA for ever
	write(t, trust, old.PEM())
	as := func(name string, v uint16) *tls.Config {
		c := p.tlsAs(name, v)
		c.RootCAs = readPool(t, trust)
		return c
	}
	var olds []*live
	var tickets []*tls.Config
	for _, v := range bothVersions {
		c := as("client", v)
		resumable(t, p, c)
		tickets = append(tickets, c)
		olds = append(olds, p.live(as("client", v)))
		wantRefused(t, p, as("new", v), "a client of a CA that is not trusted yet")
	}
	rename(t, p.file("ca.crt"), append(old.PEM(), next.PEM()...))
	p.wantTrust(2)
	var news []*live
	for i, v := range bothVersions {
		news = append(news, p.live(as("new", v)))
		olds[i].ping()
		resumable(t, p, tickets[i])
		resumable(t, p, as("client", v))
	}
	p.wantSessionsByCA(map[string]int{"CN=old": 2, "CN=next": 2})
	for _, l := range olds {
		l.watch()
	}
	rename(t, p.file("ca.crt"), next.PEM())
	changed := time.Now()
	worst := wantGone(t, changed, olds...)
	t.Logf("the last live session of the old CA ended %d ms after its end", worst.Milliseconds())
	for i, v := range bothVersions {
		wantRefused(t, p, tickets[i], "a ticket of the old CA, "+tls.VersionName(v))
		wantRefused(t, p, as("client", v), "a client of the old CA, "+tls.VersionName(v))
		news[i].ping()
		if _, err := handshake(p.addr, as("new", v)); err != nil {
			t.Errorf("a client of the new CA: %v", err)
		}
	}
	p.wantMetric(2, "sessions_closed_total", "reason", "untrusted")
	p.wantSessionsByCA(map[string]int{"CN=next": 2})
	p.wantEnd()
}

// wantTrust waits until trust has changed so often, and live sessions were judged by it.
func (p *instance) wantTrust(generation float64) {
	p.t.Helper()
	eventually(p.t, fmt.Sprint("trust generation ", generation), func() bool {
		return p.metrics().sum("trust_generation") == generation && len(p.logged("live sessions judged again")) >= int(generation)-1
	})
}

// wantSessionsByCA waits until /status.json and the metric say so: sessions that were closed may still be counted.
func (p *instance) wantSessionsByCA(want map[string]int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("sessions by client CA: %v", want), func() bool {
		_, body := p.get("/status.json")
		var s statuspage.Status
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			p.t.Fatal(err)
		}
		got, metrics := map[string]int{}, p.metrics()
		for _, c := range s.Certificates {
			if c.Sessions != nil {
				got[c.Subject] = *c.Sessions
			}
		}
		return maps.Equal(got, want) && !slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(ca string) bool {
			return metrics.sum("sessions_by_client_ca", "ca", ca) != float64(want[ca])
		})
	})
}

func TestReplicasResumeEachOtherUntilOneTrustsLess(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "both")
	backend := redisServer(t).url()
	master := filepath.Join(t.TempDir(), "master")
	write(t, master, []byte(strings.Repeat("0123456789abcdef", 4)))
	crl := func(revoked ...pki.CRLOptions) []byte {
		t.Helper()
		text, err := ca.CRL(slices.Concat(revoked, []pki.CRLOptions{{}})[0])
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	list := filepath.Join(t.TempDir(), "list.crl")
	write(t, list, crl())
	vars := []string{"TLS_TICKET_KEYS_FILE=" + master, "TLS_CRL_FILE=" + list, "TLS_RELOAD_INTERVAL=1h"}
	one := ownCA(t, ca, backend, vars...).wantReady()
	two := ownCA(t, ca, backend, vars...).wantReady()
	for _, v := range bothVersions {
		config := one.tlsAs("client", v)
		resumable(t, one, config)
		if st, err := handshake(two.addr, config); err != nil || !st.DidResume {
			t.Errorf("%s: the other replica did not resume (%v)", tls.VersionName(v), err)
		}
	}
	config := one.tlsAs("client", tls.VersionTLS13)
	resumable(t, one, config)
	serial, err := tls.LoadX509KeyPair(one.file("client.crt"), one.file("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	revoked := pki.CRLOptions{}
	revoked.Revoked = append(revoked.Revoked, serial.Leaf.SerialNumber)
	rename(t, list, crl(revoked))
	one.wantTrust(2)
	two.wantTrust(2)
	wantRefused(t, two, config, "a ticket of the other replica")
	one.wantEnd()
	two.wantEnd()
}

func TestCheckJudgesARealCRL(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "checked")
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "pki"))
	write(t, filepath.Join(dir, "pki", "ca.crt"), ca.PEM())
	cert, key := pair(t, ca, serverLeaf())
	write(t, filepath.Join(dir, "pki", "server.crt"), []byte(read(t, cert)))
	write(t, filepath.Join(dir, "pki", "server.key"), []byte(read(t, key)))
	other := newCA(t, "another")
	now := time.Now()
	for name, c := range map[string]struct {
		by   *pki.CA
		crl  pki.CRLOptions
		want string
	}{
		"good":      {ca, pki.CRLOptions{}, ""},
		"expired":   {ca, pki.CRLOptions{ThisUpdate: now.Add(-48 * time.Hour), NextUpdate: now.Add(-time.Hour)}, "crl_expired"},
		"soon":      {ca, pki.CRLOptions{ThisUpdate: now.Add(-48 * time.Hour), NextUpdate: now.Add(time.Hour)}, "crl_expires_soon"},
		"not yet":   {ca, pki.CRLOptions{ThisUpdate: now.Add(48 * time.Hour)}, "crl_not_yet_valid"},
		"another's": {other, pki.CRLOptions{}, "crl_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := c.by.CRL(c.crl)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "list.crl"), text)
			vars := append(proxyVars("redis://127.0.0.1:1"), "TLS_CRL_FILE=list.crl", "MAX_CONNECTIONS=100")
			p := dragontls(t, dir, []string{"check", "--json", "--no-backend"}, vars)
			code := exitOK
			if c.want != "" {
				code = exitFailed
			}
			p.wantExit(code)
			var r report
			if err := json.Unmarshal([]byte(p.stdout.String()), &r); err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, f := range r.Findings {
				got += f.ID
			}
			if got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
