package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

// junkCAs are n certificates that are named like the CA of the tests.
func junkCAs(t *testing.T, n int) (ders [][]byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), RawSubject: testPKI().client.Leaf.RawIssuer, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{fmt.Sprint(i, ".junk")},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		ders = append(ders, der)
	}
	return ders
}

// The sessions of one certificate end together, whatever each has sent after it, and each is judged only once for that:
// what a judgement costs is for Config.Recheck to bound.
func TestSessionsWithOtherChainsEndWithTheirLeaf(t *testing.T) {
	t.Parallel()
	const ending = 40
	eachMode(t, func(t *testing.T, m mode) {
		j := &judgement{}
		var mu sync.Mutex
		judged := make(map[string]int) // by the certificates after the leaf
		counting := false
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) {
			swept(c)
			c.TLS.ClientAuth = tls.RequireAnyClientCert
			c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
				mu.Lock()
				defer mu.Unlock()
				if counting && cs.PeerCertificates[0].Subject.CommonName == "ending" {
					judged[string(cs.PeerCertificates[1].Raw)]++
				}
				return j.recheck(cs)
			}
		})
		pair := testPKI().issue(pki.Leaf{CN: "ending", Client: true})
		good := h.dialAs("good")
		good.do("+PONG\r\n", "PING")
		var sessions []*wire
		for _, der := range junkCAs(t, ending) {
			config := testPKI().clientConfig()
			config.Certificates = []tls.Certificate{{Certificate: slices.Concat(pair.Certificate[:1], [][]byte{der}), PrivateKey: pair.PrivateKey}}
			conn, err := tls.Dial("tcp", h.addr, config)
			if err != nil {
				t.Fatal(err)
			}
			w := newWire(t, conn)
			w.do("+PONG\r\n", "PING")
			sessions = append(sessions, w)
		}
		eventually(t, "no session is busy", func() bool { // a busy one is judged again
			busy := false
			h.each(func(n *session) { busy = busy || !n.idle() })
			return !busy
		})
		mu.Lock()
		counting = true
		mu.Unlock()
		h.each(func(n *session) {
			if n.peer.Load().Name == "ending" {
				n.ends.Store(1)
			}
		})
		h.firstEnd.Store(1) // the sweeper looks
		for _, w := range sessions {
			w.wantEnd()
		}
		h.wantClosed(closeExpired, ending)
		good.do("+PONG\r\n", "PING")
		mu.Lock()
		defer mu.Unlock()
		if len(judged) != ending {
			t.Errorf("%d of %d chains were judged", len(judged), ending)
		}
		for _, n := range judged {
			if n != 1 {
				t.Errorf("one chain was judged %d times", n)
			}
		}
	})
}
