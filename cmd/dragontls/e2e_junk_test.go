//go:build unix

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// junk makes CA certificates that are named like the real CA, within the limits on what a client may send. What each
// chain looks like depends on the seed alone. It may be used concurrently.
type junk struct {
	t       testing.TB
	subject []byte
	keys    []crypto.Signer
	seed    uint64
}

func newJunk(p *instance, seed uint64) *junk {
	p.t.Helper()
	ca, err := tls.LoadX509KeyPair(p.file("ca.crt"), p.file("ca.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	j := &junk{t: p.t, subject: ca.Leaf.RawSubject, seed: seed}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P384()} {
		j.keys = append(j.keys, ecKey(p.t, curve))
	}
	return j
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// chain returns one to three certificates, the same for the same n. They share a key, so each may have signed each.
func (j *junk) chain(n int) (ders [][]byte) {
	r := mathrand.New(mathrand.NewPCG(j.seed, uint64(n)))
	return j.cas(r, j.keys[r.IntN(len(j.keys))], 1+r.IntN(3))
}

// stranger returns a client that no real CA knows, with so many CAs that share a key.
func (j *junk) stranger(n int, key crypto.Signer, cas int) tls.Certificate {
	r := mathrand.New(mathrand.NewPCG(j.seed, uint64(n)))
	template := &x509.Certificate{SerialNumber: new(big.Int).SetUint64(r.Uint64()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	own := ecKey(j.t, elliptic.P256())
	leaf, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{RawSubject: j.subject}, own.Public(), key)
	if err != nil {
		j.t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{leaf}, j.cas(r, key, cas)...), PrivateKey: own}
}

func (j *junk) cas(r *mathrand.Rand, key crypto.Signer, n int) (ders [][]byte) {
	for range n {
		template := &x509.Certificate{
			SerialNumber: new(big.Int).SetUint64(r.Uint64()), RawSubject: j.subject, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{fmt.Sprintf("%x.junk", r.Uint64())},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			j.t.Error(err)
			return nil
		}
		ders = append(ders, der)
	}
	return ders
}

// sending returns a copy of config that sends these certificates after the leaf.
func sending(config *tls.Config, cas [][]byte) *tls.Config {
	c := config.Clone()
	pair := c.Certificates[0]
	pair.Certificate = append(pair.Certificate[:1:1], cas...)
	c.Certificates, c.ClientSessionCache = []tls.Certificate{pair}, tls.NewLRUClientSessionCache(1)
	return c
}

// crowdWithJunk connects n sessions of one certificate, each with other CAs after the leaf, half of them with TLS 1.2.
func crowdWithJunk(p *instance, name string, n int) []*live {
	p.t.Helper()
	j := newJunk(p, 1)
	configs := []*tls.Config{p.tlsAs(name, tls.VersionTLS12), p.tlsAs(name, tls.VersionTLS13)}
	all := make([]*live, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				conn, err := tls.Dial("tcp", p.addr, sending(configs[i%2], j.chain(int(i))))
				if err != nil {
					p.t.Errorf("session %d: %v", i, err)
					return
				}
				p.t.Cleanup(func() { conn.Close() })
				all[i] = newLive(p.t, conn)
				all[i].ping()
			}
		})
	}
	wg.Wait()
	if p.t.Failed() {
		p.t.FailNow()
	}
	return all
}

// asking is a session that asks without pause.
type asking struct {
	t        testing.TB
	answered atomic.Int64
	stopping atomic.Bool
	done     chan struct{}
}

// keepAsking begins; stop ends it.
func keepAsking(l *live) *asking {
	a := &asking{t: l.t, done: make(chan struct{})}
	go func() { // ends with stop, or with an answer that is wrong or does not come
		defer close(a.done)
		for n := 0; !a.stopping.Load(); n++ {
			value := fmt.Sprintf("%012d", n)
			want := "$12\r\n" + value + "\r\n"
			got := make([]byte, len(want))
			l.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(l, array("ECHO", value)); err != nil {
				l.t.Errorf("honest session, command %d: %v", n, err)
				return
			}
			if _, err := io.ReadFull(l.r, got); err != nil || string(got) != want {
				l.t.Errorf("honest session, command %d: got %q, %v", n, got, err)
				return
			}
			a.answered.Add(1)
		}
	}()
	return a
}

// more waits for the answers to commands that were sent after the call.
func (a *asking) more() {
	a.t.Helper()
	before := a.answered.Load()
	eventually(a.t, "an honest session is answered", func() bool { return a.answered.Load() > before+20 || a.t.Failed() })
}

func (a *asking) stop() {
	a.stopping.Store(true)
	<-a.done
}

// One certificate has many sessions, and each of them has sent other CAs: what there is to verify of them takes no time
// once their certificate is revoked. The time is printed; 3,000 sessions were a measurement:
//
//	E2E_JUNK=3000 go test -run TestRevokedSessionsWithJunkChainsAreOut -v ./cmd/dragontls
func TestRevokedSessionsWithJunkChainsAreOut(t *testing.T) {
	for _, way := range []struct {
		name   string
		revoke func(t *testing.T, p *instance)
	}{
		{"pki revoke", func(t *testing.T, p *instance) {
			dragontls(t, p.dir, []string{"pki", "revoke", "victim"}, nil).wantExit(exitOK)
		}},
		{"a CRL of another program", func(t *testing.T, p *instance) {
			rename(t, p.file("ca.crl"), p.crlOf("victim"))
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, mode string) { testRevokedSessionsWithJunk(t, mode, way.revoke) })
		})
	}
}

// crlOf returns a CRL, DER, that revokes clients of the PKI.
func (p *instance) crlOf(names ...string) []byte {
	p.t.Helper()
	ca, err := tls.LoadX509KeyPair(p.file("ca.crt"), p.file("ca.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	list := &x509.RevocationList{Number: big.NewInt(time.Now().Unix()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(24 * time.Hour)}
	for _, name := range names {
		serial, _ := new(big.Int).SetString(p.serial(name), 16)
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Leaf, ca.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		p.t.Fatal(err)
	}
	return der
}

func testRevokedSessionsWithJunk(t *testing.T, mode string, revoke func(*testing.T, *instance)) {
	n := envInt(t, "E2E_JUNK", 60)
	p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode, "TLS_CRL_FILE=pki/ca.crl", "TLS_RELOAD_INTERVAL=1h", "LOG_LEVEL=info").wantReady()
	for _, name := range []string{"victim", "honest"} {
		if err := pki.Client(p.file("."), name); err != nil {
			t.Fatal(err)
		}
	}
	victims := crowdWithJunk(p, "victim", n)
	next := p.nextHandshakes("victim")
	var honest []*asking
	for _, v := range bothVersions {
		honest = append(honest, keepAsking(p.live(sending(p.tlsAs("honest", v), newJunk(p, 2).chain(0)))))
	}
	for _, a := range honest {
		t.Cleanup(a.stop)
		a.more()
	}
	for _, l := range victims {
		l.watch()
	}
	revoke(t, p)
	info, err := os.Stat(p.file("ca.crl"))
	if err != nil {
		t.Fatal(err)
	}
	worst := wantGone(t, info.ModTime(), victims...)
	t.Logf("the last of %d sessions ended %d ms after the CRL was written", n, worst.Milliseconds())
	for _, h := range next {
		wantRefused(t, p, h.config, h.name)
	}
	for _, a := range honest {
		a.more()
		a.stop()
	}
	p.wantMetric(float64(n), "sessions_closed_total", "reason", "certificate_revoked")
	p.wantMetric(float64(len(next)), "handshakes_total", "reason", "certificate_revoked")
	p.wantEnd()
}

type namedConfig struct {
	name   string
	config *tls.Config
}

// nextHandshakes are all ways in which a client may come back: with each kind of chain, with a ticket and without.
func (p *instance) nextHandshakes(name string) (all []namedConfig) {
	p.t.Helper()
	ca, err := tls.LoadX509KeyPair(p.file("ca.crt"), p.file("ca.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	junk := newJunk(p, 3).chain(0)
	for _, v := range bothVersions {
		for kind, cas := range map[string][][]byte{
			"the leaf alone": nil, "its CA": ca.Certificate, "junk": junk, "junk and its CA": slices.Concat(junk[:1], ca.Certificate),
		} {
			about := fmt.Sprintf("%s, %s", tls.VersionName(v), kind)
			ticket := sending(p.tlsAs(name, v), cas)
			resumable(p.t, p, ticket)
			all = append(all, namedConfig{about, sending(p.tlsAs(name, v), cas)}, namedConfig{about + ", with a ticket", ticket})
		}
	}
	return all
}
