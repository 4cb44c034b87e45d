//go:build unix

package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"

	"dragontls/certs/pki"
)

// probed is an endpoint as it should be, which a test makes worse before it starts.
type probed struct {
	t      *testing.T
	ca     *pki.CA
	caFile string
	config *tls.Config
	redis  *miniredis.Miniredis
	answer func(command string) string // an error instead of the backend's own answer, or nothing; nil: none
}

func newProbed(t *testing.T) *probed {
	t.Helper()
	ca := newCA(t, "root")
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	write(t, caFile, ca.PEM())
	e := &probed{t: t, ca: ca, caFile: caFile, redis: miniredis.NewMiniRedis(), config: &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: readPool(t, caFile), MinVersion: tls.VersionTLS12,
	}}
	e.shows(ca, serverLeaf())
	return e
}

// shows makes the endpoint show a leaf of ca.
func (e *probed) shows(ca *pki.CA, l pki.Leaf) {
	e.t.Helper()
	certPEM, keyPEM, err := ca.Issue(l)
	if err != nil {
		e.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		e.t.Fatal(err)
	}
	e.config.Certificates = []tls.Certificate{pair}
}

// withClient are the flags that a good endpoint wants.
func (e *probed) withClient() []string {
	cert, key := pair(e.t, e.ca, pki.Leaf{CN: "client", Client: true})
	return []string{"--ca", e.caFile, "--cert", cert, "--key", key}
}

// start returns the address.
func (e *probed) start() string {
	e.t.Helper()
	if err := e.redis.StartTLS(e.config); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(e.redis.Close)
	e.redis.Server().SetPreHook(func(c *server.Peer, command string, args ...string) bool {
		if e.answer == nil {
			return false
		}
		text := e.answer(strings.Join(append([]string{command}, args...), " "))
		if text != "" {
			c.WriteError(text)
		}
		return text != ""
	})
	return e.redis.Addr()
}

func (e *probed) probe(args ...string) probeReport {
	e.t.Helper()
	return probing(e.t, e.start(), append(e.withClient(), args...)...)
}

// probing probes as a person and as a program does, and wants that both are told the same.
func probing(t *testing.T, address string, args ...string) (r probeReport) {
	t.Helper()
	args = append([]string{"probe", address}, args...)
	got := invoke(nil, append(args, "--json")...)
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || got.stderr != "" {
		t.Fatalf("%q: %v in %+v", args, err, got)
	}
	want := exitOK
	if r.findings() > 0 {
		want = exitFailed
	}
	human := invoke(nil, args...)
	if got.code != want || human.code != want || r.Findings != r.findings() {
		t.Errorf("got exit codes %d and %d with %d findings:\n%s", got.code, human.code, r.Findings, human.stdout)
	}
	for _, c := range r.Checks {
		if c.Result == probeFail && (c.Cure == "" || !strings.Contains(human.stdout, "-> "+printable(c.Cure))) {
			t.Errorf("%s fails without a cure:\n%s", c.Check, human.stdout)
		}
	}
	if n := strings.Count("\n"+human.stdout, "\nFAIL "); n != r.Findings {
		t.Errorf("got %d lines of FAIL, want %d:\n%s", n, r.Findings, human.stdout)
	}
	return r
}

// wantCheck wants the result and, in its text or cure, a word of a check.
func (r probeReport) wantCheck(t *testing.T, check, result, part string) {
	t.Helper()
	for _, c := range r.Checks {
		if c.Check == check {
			if c.Result != result || !strings.Contains(c.Text+"\n"+c.Cure, part) {
				t.Errorf("got %+v, want %s and %q", c, result, part)
			}
			return
		}
	}
	t.Errorf("no check %q in %+v", check, r.Checks)
}

// wantOnly wants that these checks fail and no other.
func (r probeReport) wantOnly(t *testing.T, checks ...string) {
	t.Helper()
	var failed []string
	for _, c := range r.Checks {
		if c.Result == probeFail {
			failed = append(failed, c.Check)
		}
	}
	if got, want := strings.Join(failed, "; "), strings.Join(checks, "; "); got != want {
		t.Errorf("got findings %q, want %q in %+v", got, want, r.Checks)
	}
}

func TestProbeFindsNothingWrongWithAGoodEndpoint(t *testing.T) {
	e := newProbed(t)
	r := e.probe()
	r.wantOnly(t)
	for _, c := range []struct{ check, result, part string }{
		{"connect", probeOK, "127.0.0.1:"},
		{"TLS 1.0", probeOK, `refused: alert "protocol version`},
		{"TLS 1.1", probeOK, `refused: alert "protocol version`},
		{"TLS 1.2", probeOK, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, X25519"},
		{"TLS 1.3", probeOK, "TLS_AES_128_GCM_SHA256, X25519MLKEM768"},
		{"certificate 1", probeInfo, "CN=localhost, issuer CN=root, serial "},
		{"chain order", probeOK, "the leaf alone"},
		{"keys", probeOK, "ECDSA P-256, signed ECDSA-SHA256"},
		{"names", probeOK, "127.0.0.1"},
		{"expiry", probeOK, "89 days left"},
		{"verification", probeOK, e.caFile},
		{"OCSP stapling", probeInfo, "none"},
		{"client certificate, TLS 1.2", probeOK, "required"},
		{"client certificate, TLS 1.3", probeOK, `required; without one: alert "certificate required"`},
		{"unknown CA, TLS 1.2", probeOK, "refused: alert"},
		{"unknown CA, TLS 1.3", probeOK, "refused: alert"},
		{"resumption, TLS 1.2", probeOK, "resumes"},
		{"resumption, TLS 1.3", probeOK, "resumes"},
		{"PING", probeOK, "+PONG"},
	} {
		r.wantCheck(t, c.check, c.result, c.part)
	}
	if len(r.Versions) != 4 || r.Versions[0].Accepted || !r.Versions[3].Accepted || r.Versions[3].KeyExchange != "X25519MLKEM768" {
		t.Errorf("got versions %+v", r.Versions)
	}
	leaf := e.config.Certificates[0].Leaf
	if len(r.Chain) != 1 || r.Chain[0].Serial != leaf.SerialNumber.Text(16) || !r.Chain[0].NotAfter.Equal(leaf.NotAfter) {
		t.Errorf("got chain %+v", r.Chain)
	}
}

func TestProbeFindsWhatIsWrong(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name     string
		worsen   func(e *probed)
		args     []string
		findings []string // the first is looked into
		part     string
	}{
		{"TLS 1.0 and 1.1", func(e *probed) { e.config.MinVersion = tls.VersionTLS10 }, nil, []string{"TLS 1.0", "TLS 1.1"}, "accepted: TLS_"},
		{"TLS 1.1 alone", func(e *probed) { e.config.MinVersion, e.config.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }, nil,
			[]string{"TLS 1.1", "TLS 1.2 or 1.3"}, "accepted: TLS_"},
		{"a broken cipher suite", func(e *probed) {
			l := serverLeaf()
			l.Key = rsaKey(e.t, 2048)
			e.shows(e.ca, l)
			e.config.MaxVersion, e.config.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
		}, nil, []string{"TLS 1.2"}, "3DES"},
		{"no client certificates", func(e *probed) { e.config.ClientAuth = tls.NoClientCert }, nil,
			[]string{"client certificate, TLS 1.2", "client certificate, TLS 1.3"}, `not requested: without one the answer is "+PONG"`},
		{"optional client certificates", func(e *probed) { e.config.ClientAuth = tls.VerifyClientCertIfGiven }, nil,
			[]string{"client certificate, TLS 1.2", "client certificate, TLS 1.3"}, `requested, not required: without one the answer is "+PONG"`},
		{"any client certificate", func(e *probed) { e.config.ClientAuth = tls.RequireAnyClientCert }, nil,
			[]string{"unknown CA, TLS 1.2", "unknown CA, TLS 1.3"}, "that nobody trusts is accepted"},
		{"other names", func(e *probed) {
			e.shows(e.ca, pki.Leaf{CN: "127.0.0.1", DNS: []string{"other.example"}, Server: true})
		}, nil,
			[]string{"names"}, `"127.0.0.1" is not among those of the certificate: other.example`},
		{"another name asked for", func(*probed) {}, []string{"--servername", "cache.example"}, []string{"names"}, `"cache.example" is not among`},
		{"expired", func(e *probed) {
			l := serverLeaf()
			l.NotBefore, l.NotAfter = now.Add(-48*time.Hour), now.Add(-time.Hour)
			e.shows(e.ca, l)
		}, nil, []string{"expiry"}, "it expired on"},
		{"not yet valid", func(e *probed) {
			l := serverLeaf()
			l.NotBefore = now.Add(time.Hour)
			e.shows(e.ca, l)
		}, nil, []string{"expiry"}, "not valid before"},
		{"another CA", func(e *probed) { e.shows(newCA(e.t, "root"), serverLeaf()) }, nil, []string{"verification"}, "--ca"},
		{"a client's certificate", func(e *probed) {
			l := serverLeaf()
			l.Server, l.Client = false, true
			e.shows(e.ca, l)
		}, nil, []string{"verification"}, "certificate of a server"},
		{"a missing intermediate", func(e *probed) {
			e.shows(between(e.t, e.ca), serverLeaf())
			e.config.Certificates[0].Certificate = e.config.Certificates[0].Certificate[:1]
		}, nil, []string{"verification"}, "send what is missing: the certificate of CN=between"},
		{"a chain out of order", func(e *probed) {
			below, err := between(e.t, e.ca).Intermediate("below")
			if err != nil {
				e.t.Fatal(err)
			}
			e.shows(below, serverLeaf())
			chain := e.config.Certificates[0].Certificate
			chain[1], chain[2] = chain[2], chain[1]
		}, nil, []string{"chain order"}, "certificate 1 is not signed by certificate 2"},
		{"a short RSA key", func(e *probed) {
			l := serverLeaf()
			l.Key = rsaKey(e.t, 1024)
			e.shows(e.ca, l)
		}, nil, []string{"keys"}, "RSA of 1024 bits"},
		{"a backend that is loading", func(e *probed) {
			e.answer = func(string) string { return "LOADING the dataset" }
		}, nil, []string{"PING"}, `no +PONG but "-LOADING the dataset"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newProbed(t)
			c.worsen(e)
			r := e.probe(c.args...)
			r.wantOnly(t, c.findings...)
			r.wantCheck(t, c.findings[0], probeFail, c.part)
		})
	}
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func between(t testing.TB, ca *pki.CA) *pki.CA {
	t.Helper()
	sub, err := ca.Intermediate("between")
	if err != nil {
		t.Fatal(err)
	}
	return sub
}
