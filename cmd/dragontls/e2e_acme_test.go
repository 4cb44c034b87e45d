//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// certbot renews from a CA that speaks ACME (RFC 8555), and the proxy serves what it left in live/: no hook, no signal.

const acmeDomain = "redis.example.test"

// acmeCA is pebble, the CA that Let's Encrypt tests ACME clients with. It resolves every name to an address of the
// test's own.
type acmeCA struct {
	*process
	directory string         // URL
	tlsRoot   string         // file with the CA of its own HTTPS
	root      []byte         // PEM of the CA that it issues from
	http      netip.AddrPort // where it expects the answer to a challenge
}

func pebble(t testing.TB) *acmeCA {
	t.Helper()
	need(t, "pebble", "pebble-challtestsrv")
	dir := t.TempDir()
	at := ownAddress()
	own := newCA(t, "pebble's HTTPS")
	leaf := serverLeaf()
	leaf.IPs = append(leaf.IPs, at.Addr().AsSlice())
	cert, key := pair(t, own, leaf)
	p := &acmeCA{tlsRoot: filepath.Join(dir, "https.crt"), http: at}
	write(t, p.tlsRoot, own.PEM())

	other := func(n uint16) string { return netip.AddrPortFrom(at.Addr(), at.Port()+n).String() }
	acme, management, dns := other(1), other(2), other(3)
	launch(t, exec.Command("pebble-challtestsrv", "-dnsserver", dns, "-defaultIPv4", at.Addr().String(), "-defaultIPv6", "",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", other(4)))
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": acme, "managementListenAddress": management, "certificate": cert, "privateKey": key,
		"httpPort": at.Port(), "retryAfter": map[string]int{"authz": 1, "order": 1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "pebble.json"), config)
	cmd := exec.Command("pebble", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", dns)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0")
	p.process = launch(t, cmd)

	p.directory = "https://" + acme + "/dir"
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: readPool(t, p.tlsRoot)}}}
	get := func(url string) (body []byte) {
		eventually(t, "pebble answers", func() bool {
			if !p.running() {
				t.Fatalf("pebble ended:\n%s%s", &p.stdout, &p.stderr)
			}
			res, err := client.Get(url)
			if err != nil {
				return false
			}
			defer res.Body.Close()
			body, err = io.ReadAll(res.Body)
			return err == nil && res.StatusCode == http.StatusOK
		})
		return body
	}
	get(p.directory)
	p.root = get("https://" + management + "/roots/0")
	return p
}

// certbot is an installation in a directory of its own.
type certbot struct {
	ca  *acmeCA
	dir string
}

func (c *certbot) run(t testing.TB, args ...string) {
	t.Helper()
	need(t, "certbot")
	cmd := exec.Command("certbot", append(args, "--non-interactive", "--server", c.ca.directory,
		"--http-01-address", c.ca.http.Addr().String(), "--http-01-port", fmt.Sprint(c.ca.http.Port()),
		"--config-dir", c.dir, "--work-dir", filepath.Join(c.dir, "work"), "--logs-dir", filepath.Join(c.dir, "logs"))...)
	cmd.Env = append(environ(), "REQUESTS_CA_BUNDLE="+c.ca.tlsRoot)
	p := launch(t, cmd)
	p.wantExit(0)
}

// live is the path of a link that certbot moves on at each renewal.
func (c *certbot) live(name string) string { return filepath.Join(c.dir, "live", acmeDomain, name) }

func (c *certbot) leaf(t testing.TB) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(read(t, c.live("fullchain.pem"))))
	if block == nil {
		t.Fatal("no certificate in fullchain.pem")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestACMERenewalIsServedWithoutAHook(t *testing.T) {
	t.Parallel()
	need(t, "certbot", "pebble", "pebble-challtestsrv", "redis-server", "redis-benchmark")
	bot := &certbot{ca: pebble(t), dir: filepath.Join(t.TempDir(), "letsencrypt")}
	bot.run(t, "certonly", "--standalone", "--domain", acmeDomain, "--agree-tos", "--register-unsafely-without-email")
	if info, err := os.Stat(bot.live("privkey.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("privkey.pem: mode %v (%v), want that of certbot, 0600", info.Mode(), err)
	}

	// Clients have certificates of another CA than the server's: their root is pebble's.
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "pki", "ca.crt"), filepath.Join(dir, "pki", "clients.crt")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "pki", "ca.crt"), bot.ca.root)
	p := servingIn(t, dir, append(proxyVars(redisServer(t).url()), "LOG_LEVEL=info", longDrain, "TLS_CLIENT_CA_FILE=pki/clients.crt",
		"TLS_CERT_FILE="+bot.live("fullchain.pem"), "TLS_KEY_FILE="+bot.live("privkey.pem"),
		"TLS_RELOAD_INTERVAL=1h")...).wantReady() // only events bring the news
	p.name = acmeDomain

	first := bot.leaf(t)
	c := crowd(t, p, first.SerialNumber.Text(16), load{})
	const renewals = 2
	var worst time.Duration
	keys := map[string]bool{fmt.Sprint(first.PublicKey): true}
	for i := range renewals {
		c.anySerial() // certbot alone knows the next one
		bot.run(t, "renew", "--force-renewal", "--no-random-sleep-on-renew")
		leaf := bot.leaf(t)
		keys[fmt.Sprint(leaf.PublicKey)] = true
		if len(keys) != i+2 {
			t.Error("certbot renewed with the same key: this proves less than it says")
		}
		serial := leaf.SerialNumber.Text(16)
		worst = max(worst, c.untilServed(t, serial, time.Now()))
		c.only(serial)
		c.untilBusy(t)
	}
	c.stop(t, renewals, worst)
	m := p.metrics()
	if got := m.sum("reload_total", "result", "ok"); got != renewals {
		t.Errorf("got %v reloads, want %d", got, renewals)
	}
	// certbot moves one link after the other: a reader may meet a pair that does not match, and says so once.
	failed := m.sum("reload_total", "result", "failed")
	if mismatched := m.sum("reload_total", "result", "failed", "reason", "mismatch"); failed != mismatched || failed > renewals {
		t.Errorf("got %v failed reloads, %v of them for a pair that does not match", failed, mismatched)
	}
	if lines := len(p.logged("reload refused, the last good certificates stay")); float64(lines) != failed {
		t.Errorf("got %d lines for %v failed reloads", lines, failed)
	}
	p.wantEnd()
}
