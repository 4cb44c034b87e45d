package proxy

import (
	"crypto/tls"
	"io"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

// alive tells whether the session behind w is served.
func (w *wire) alive() bool {
	if _, err := io.WriteString(w, cmd("PING")); err != nil {
		return false
	}
	line, _ := w.r.ReadString('\n')
	return line == "+PONG\r\n"
}

func TestConnectionsPerIdentityAreLimited(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const limit, tries = 7, 200
		j := &judgement{}
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.Recheck, c.MaxPerIdentity, c.placeTimeout = j.recheck, limit, 20*time.Millisecond // no place becomes free
		})
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
	})
}

// live is the number of sessions that have not ended.
func (h *harness) live() (n int) {
	h.each(func(s *session) {
		if !s.ended() {
			n++
		}
	})
	return n
}

// Who never has more connections than it may is never refused, however fast it comes back.
func TestClientWithinItsLimitMayComeBackAtOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) { c.Recheck, c.MaxPerIdentity = (&judgement{}).recheck, 1 })
		config := testPKI().clientConfig()
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 300 {
			c, err := tls.Dial("tcp", h.addr, config)
			if err != nil {
				t.Fatal(err)
			}
			w := newWire(t, c)
			w.do("+PONG\r\n", "PING")
			if n := h.live(); n != 1 {
				t.Fatalf("%d sessions live at once", n)
			}
			if i%30 == 0 {
				w.send(cmd("BLPOP", "q", "0")) // its end is known to the backend first
				eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
			}
			w.Close()
		}
		if n := h.Stats().SessionsClosed[string(closeIdentityFull)]; n != 0 {
			t.Errorf("refused %d times", n)
		}
	})
}

// A session that ends has no place any more, even where its client takes no goodbye.
func TestPlaceIsFreeWhenTheSessionEnds(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.Recheck, c.MaxPerIdentity, c.WriteTimeout = (&judgement{}).recheck, 1, time.Hour
		})
		h.stuckWriter("client")
		h.each(func(s *session) { s.end(closeIdle) })
		h.dial().do("+PONG\r\n", "PING")
	})
}

// waiting is the number of sessions that wait for a place.
func (h *harness) waiting() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range h.identities {
		n += len(i.waiting)
	}
	return n
}

// Whoever waits for a place ends with the server.
func TestCloseEndsThoseWhoWaitForAPlace(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) { c.Recheck, c.MaxPerIdentity = (&judgement{}).recheck, 1 })
		h.dial().do("+PONG\r\n", "PING")
		w := h.dial()
		eventually(t, "it waits", func() bool { return h.waiting() == 1 })
		h.Close()
		if got := w.wantEnd(); got != "" {
			t.Errorf("got %q", got)
		}
		if len(h.identities) != 0 {
			t.Errorf("left: %v", h.identities)
		}
	})
}

func TestClientsWithoutACertificateHaveNoLimitOfTheirOwn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.MaxPerIdentity = 1
			c.TLS.ClientAuth = tls.NoClientCert
			c.Recheck = func(*tls.ConnectionState) (Peer, error) { return Peer{}, nil }
		})
		a, b := h.dial(), h.dial()
		a.do("+PONG\r\n", "PING")
		b.do("+PONG\r\n", "PING")
	})
}

// Who loses trust, or its user, gives its place back once.
func TestPlacesOfEndedSessionsAreFree(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := mapping("web")
		h := m.start(t, dragonflyWithUsers(t, "web").Addr(), func(c *Config) { mappedTo(j)(c); c.MaxPerIdentity = 1 })
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
	})
}
