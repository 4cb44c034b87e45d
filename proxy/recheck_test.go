package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

// One leaf, sent with and without the CA above it: each is judged by what it has shown.
func TestRecheckJudgesEachSessionByWhatItHasShown(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		root, err := pki.NewCA("root")
		if err != nil {
			t.Fatal(err)
		}
		middle, err := root.Intermediate("middle")
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := middle.Issue(pki.Leaf{CN: "client", Client: true})
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		if len(pair.Certificate) != 2 {
			t.Fatalf("%d certificates, want leaf and CA", len(pair.Certificate))
		}
		for _, refused := range []int{1, 2} { // certificates sent
			var changed atomic.Bool
			j := &judgement{}
			h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) {
				c.TLS.ClientCAs = x509.NewCertPool()
				c.TLS.ClientCAs.AppendCertsFromPEM(middle.PEM())
				c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
					if changed.Load() && len(cs.PeerCertificates) == refused {
						return Peer{}, lostError(handshakeUnknownCA)
					}
					return j.recheck(cs)
				}
			})
			clients := map[int]*wire{}
			for sent := 1; sent <= 2; sent++ {
				config := testPKI().clientConfig()
				config.Certificates = []tls.Certificate{{Certificate: pair.Certificate[:sent], PrivateKey: pair.PrivateKey}}
				c, err := tls.Dial("tcp", h.addr, config)
				if err != nil {
					t.Fatal(err)
				}
				clients[sent] = newWire(t, c)
				clients[sent].do("+PONG\r\n", "PING")
			}
			changed.Store(true)
			h.Recheck()
			clients[refused].wantEnd()
			clients[3-refused].do("+PONG\r\n", "PING")
			h.wantClosed(closeUntrusted, 1)
		}
	})
}

// A verdict that takes long holds none of the others back, and each is carried out at once.
func TestRecheckJudgesManyChainsSideBySide(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))))
		j := &judgement{}
		others := make(chan struct{})
		var changed atomic.Bool
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
				switch {
				case !changed.Load():
				case cs.PeerCertificates[0].Subject.CommonName != "slow":
					return Peer{}, lostError(handshakeRevoked)
				default:
					select {
					case <-others:
					case <-time.After(patience): // only to end a failing test
						t.Error("the others wait for the slow one")
					}
				}
				return j.recheck(cs)
			}
		})
		slow := h.dialAs("slow")
		slow.do("+PONG\r\n", "PING")
		var lost []*wire
		for i := range aloneUpTo {
			w := h.dialAs(fmt.Sprint("client ", i))
			w.do("+PONG\r\n", "PING")
			lost = append(lost, w)
		}
		changed.Store(true)
		done := make(chan struct{})
		go func() { // ends with Recheck
			defer close(done)
			h.Recheck()
		}()
		for _, w := range lost {
			w.SetReadDeadline(time.Now().Add(patience))
			if _, err := w.r.ReadByte(); err == nil {
				t.Error("a reply came behind the end")
			}
		}
		close(others)
		<-done
		slow.do("+PONG\r\n", "PING")
		h.wantClosed(closeRevoked, aloneUpTo)
	})
}

// Whom it cannot judge it does not keep.
func TestPanicInRecheckEndsTheSessionsItWasAbout(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var changed atomic.Bool
		j := &judgement{}
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
				if changed.Load() && cs.PeerCertificates[0].Subject.CommonName == "bad" {
					panic("a bug")
				}
				return j.recheck(cs)
			}
		})
		bad, good := h.dialAs("bad"), h.dialAs("good")
		bad.do("+PONG\r\n", "PING")
		good.do("+PONG\r\n", "PING")
		changed.Store(true)
		h.Recheck()
		bad.wantEnd()
		good.do("+PONG\r\n", "PING")
		h.wantClosed(closeInternalError, 1)
		if n := h.panics.Swap(0); n != 1 {
			t.Errorf("%d panics counted", n)
		}
	})
}
