package proxy

import (
	"crypto/tls"
	"io"
	"sync"
	"testing"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

// alive tells whether the session behind w is served.
func (w *wire) alive() bool {
	if _, err := io.WriteString(w, cmd("PING")); err != nil {
		return false
	}
	n, _ := io.ReadFull(w.r, make([]byte, len("+PONG\r\n")))
	return n > 0
}

func TestConnectionsPerIdentityAreLimited(t *testing.T) {
	const limit, tries = 7, 200
	j := &judgement{}
	h := start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) { c.Recheck, c.MaxPerIdentity = j.recheck, limit })
	config := testPKI().clientConfig()
	config.Certificates = []tls.Certificate{testPKI().issue(pki.Leaf{CN: "many", Client: true})}
	other := h.dialAs("other")
	for round := range 2 {
		var mu sync.Mutex
		var served []*wire
		var all sync.WaitGroup
		for range tries {
			all.Go(func() {
				c, err := tls.Dial("tcp", h.addr, config)
				if err != nil {
					return // reset while it was being closed
				}
				w := newWire(t, c)
				if w.alive() {
					mu.Lock()
					served = append(served, w)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(served) != limit {
			t.Errorf("round %d: %d sessions are served, want %d", round, len(served), limit)
		}
		h.wantClosed(closeIdentityFull, uint64((round+1)*(tries-limit)))
		other.do("+PONG\r\n", "PING")
		for _, w := range served {
			w.Close()
		}
		eventually(t, "their places are free", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.identities) == 1 && len(h.sessions) == 1
		})
	}
	other.Close()
	eventually(t, "nothing is left", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.identities) == 0 && len(h.sessions) == 0
	})
}

func TestClientsWithoutACertificateHaveNoLimitOfTheirOwn(t *testing.T) {
	h := start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
		c.MaxPerIdentity = 1
		c.TLS.ClientAuth = tls.NoClientCert
		c.Recheck = func(*tls.ConnectionState) (Peer, error) { return Peer{}, nil }
	})
	a, b := h.dial(), h.dial()
	a.do("+PONG\r\n", "PING")
	b.do("+PONG\r\n", "PING")
}

// Who loses trust, or its user, gives its place back once.
func TestPlacesOfEndedSessionsAreFree(t *testing.T) {
	j := mapping("web")
	h := start(t, dragonflyWithUsers(t, "web").Addr(), func(c *Config) { mappedTo(j)(c); c.MaxPerIdentity = 1 })
	for range 5 {
		w := h.dialAs("web")
		w.actsAs("web")
		j.change("web", func(u *User) { u.Mapping[0]++ })
		h.Recheck()
		w.wantEnd()
		eventually(t, "its place is free", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.identities) == 0
		})
	}
}
