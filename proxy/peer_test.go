package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

// judgement decides about clients by the CN of their leaf.
type judgement struct {
	mu    sync.Mutex
	calls int
	lost  map[string]string // CN -> reason
	until time.Time
	users map[string]User // CN -> user; nil: none
}

type lostError string

func (e lostError) Error() string  { return "lost: " + string(e) }
func (e lostError) Reason() string { return string(e) }

func (j *judgement) recheck(cs *tls.ConnectionState) (Peer, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls++
	leaf := cs.PeerCertificates[0]
	if reason, ok := j.lost[leaf.Subject.CommonName]; ok {
		return Peer{}, lostError(reason)
	}
	until := j.until
	if until.IsZero() {
		until = leaf.NotAfter
	}
	p := Peer{
		Anchor: leaf.Issuer.CommonName, NotBefore: leaf.NotBefore, NotAfter: until, Generation: 7,
		Identity: sha256.Sum256([]byte(leaf.Subject.CommonName)), Name: leaf.Subject.CommonName, Serial: leaf.SerialNumber.Text(16),
	}
	if j.users == nil {
		return p, nil
	}
	u, ok := j.users[p.Name]
	if !ok {
		return Peer{}, lostError(handshakeUnmapped)
	}
	p.User = &u
	return p, nil
}

func (j *judgement) set(f func(*judgement)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j)
}

func (h *harness) dialAs(cn string) *wire {
	h.t.Helper()
	config := testPKI().clientConfig()
	config.Certificates = []tls.Certificate{testPKI().issue(pki.Leaf{CN: cn, Client: true})}
	c, err := tls.Dial("tcp", h.addr, config)
	if err != nil {
		h.t.Fatal(err)
	}
	return newWire(h.t, c)
}

func TestRecheckEndsThoseWhoLostTrust(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for reason, want := range map[string]closeReason{
			handshakeRevoked: closeRevoked, handshakeExpired: closeExpired, handshakeUnknownCA: closeUntrusted, "nonsense": closeUntrusted,
			handshakeNotAllowed: closeNotAllowed, handshakeUnmapped: closeUnmapped, handshakeBadUser: closeBadUser,
		} {
			t.Run(reason, func(t *testing.T) {
				j := &judgement{}
				d := dragonflyAt(t, proxytest.Options{})
				h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = j.recheck })
				idle, busy, good := h.dialAs("bad"), h.dialAs("bad"), h.dialAs("good")
				for _, w := range []*wire{idle, busy, good} {
					w.do("+PONG\r\n", "PING")
				}
				busy.send(cmd("BLPOP", "q", "0"))
				eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
				j.set(func(j *judgement) { j.lost = map[string]string{"bad": reason} })
				h.Recheck()
				if idle.wantEnd() != "" || busy.wantEnd() != "" {
					t.Error("a reply came behind the end")
				}
				h.wantClosed(want, 2)
				eventually(t, "nobody waits at the backend", func() bool { return d.Blocked() == 0 })
				good.do("+PONG\r\n", "PING")
			})
		}
	})
}

func TestAClientThatDoesNotReadEndsToo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, c := range map[string]struct {
			lose func(h *harness, j *judgement)
			want closeReason
		}{
			"lost trust": {func(h *harness, j *judgement) {
				j.set(func(j *judgement) { j.lost = map[string]string{"bad": handshakeRevoked} })
				h.Recheck()
			}, closeRevoked},
			"expired": {func(h *harness, j *judgement) {
				j.set(func(j *judgement) { j.lost = map[string]string{"bad": handshakeExpired} })
				h.each(func(n *session) { n.ends.Store(1) })
				h.firstEnd.Store(1)
			}, closeExpired},
		} {
			t.Run(name, func(t *testing.T) {
				j := &judgement{}
				h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { swept(c); c.Recheck, c.WriteTimeout = j.recheck, time.Hour })
				h.stuckWriter("bad")
				c.lose(h, j)
				h.wantClosed(c.want, 1)
			})
		}
	})
}

// stuckWriter is a session that the proxy cannot write to.
func (h *harness) stuckWriter(cn string) {
	t := h.t
	w := h.dialAs(cn)
	w.do("+OK\r\n", "SET", "k", strings.Repeat("v", 1<<20))
	go func() {
		for range 64 {
			if _, err := w.Write([]byte(cmd("GET", "k"))); err != nil {
				return
			}
		}
	}()
	eventually(t, "the proxy is stuck in a write", func() bool {
		stuck := false
		h.each(func(n *session) { stuck = n.client.sock.Stuck() })
		return stuck
	})
}

func TestRecheckJudgesEachChainOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := &judgement{}
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { c.Recheck = j.recheck })
		for range 5 {
			h.dial().do("+PONG\r\n", "PING")
		}
		h.dialAs("other").do("+PONG\r\n", "PING")
		before := 0
		j.set(func(j *judgement) { before = j.calls })
		h.Recheck()
		j.set(func(j *judgement) {
			if n := j.calls - before; n != 2 {
				t.Errorf("judged %d times for 2 chains", n)
			}
		})
		st := h.Stats()
		if st.SessionsByAnchor["proxy tests"] != 6 || st.SessionsByGeneration[7] != 6 || st.EarliestEnd.IsZero() {
			t.Errorf("counted %v, %v, %v", st.SessionsByAnchor, st.SessionsByGeneration, st.EarliestEnd)
		}
	})
}

// Trust is lost between the handshake and the session: whoever looks second sees it.
func TestTrustLostBetweenHandshakeAndSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := &judgement{lost: map[string]string{"bad": handshakeRevoked}}
		d := dragonflyAt(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = j.recheck })
		w := h.dialAs("bad") // the handshake itself asks nobody here
		_, _ = w.Write([]byte(cmd("SET", "k", "v")))
		if got := w.wantEnd(); got != "" {
			t.Errorf("answered %q", got)
		}
		h.wantClosed(closeRevoked, 1)
		if got := h.Stats().Commands["SET"]; got != 0 {
			t.Errorf("%d commands were passed on", got)
		}
	})
}

// Trust changes at every moment of many handshakes: nobody who lost it stays.
func TestNobodySlipsThroughAChangeOfTrust(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := &judgement{}
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { c.Recheck = j.recheck })
		config := testPKI().clientConfig()
		config.Certificates = []tls.Certificate{testPKI().issue(pki.Leaf{CN: "bad", Client: true})}
		var clients sync.WaitGroup
		var met atomic.Int64
		for range 4 {
			clients.Go(func() {
				for range 25 {
					c, err := tls.Dial("tcp", h.addr, config)
					if err != nil {
						continue
					}
					met.Add(1)
					t.Cleanup(func() { c.Close() })
				}
			})
		}
		eventually(t, "some are in", func() bool { return met.Load() >= 10 })
		j.set(func(j *judgement) { j.lost = map[string]string{"bad": handshakeRevoked} })
		h.Recheck()
		clients.Wait()
		eventually(t, "all are gone", func() bool { return h.Stats().Sessions == 0 && h.Stats().Handshaking == 0 })
	})
}

func TestSessionEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := &judgement{until: time.Now().Add(1500 * time.Millisecond)}
		d := dragonflyAt(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) { swept(c); c.Recheck = j.recheck })
		idle, blocked := h.dialAs("a"), h.dialAs("b")
		idle.do("+PONG\r\n", "PING")
		blocked.send(cmd("BLPOP", "q", "0"))
		idle.wantEnd()
		blocked.wantEnd()
		h.wantClosed(closeExpired, 2)
	})
}

func TestSessionOutlivesACertificateWhoseCAWasRenewed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := &judgement{until: time.Now().Add(time.Second)}
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { swept(c); c.Recheck = j.recheck })
		w := h.dialAs("a")
		w.do("+PONG\r\n", "PING")
		j.set(func(j *judgement) { j.until = time.Now().Add(time.Hour) })
		eventually(t, "it is judged by its new end", func() bool { return time.Until(h.Stats().EarliestEnd) > time.Minute })
		w.do("+PONG\r\n", "PING")
	})
}

func TestEndsAreSpread(t *testing.T) {
	end := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		validity, window time.Duration
	}{
		"long":  {24 * time.Hour, time.Minute},
		"short": {10 * time.Minute, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p := Peer{NotBefore: end.Add(-c.validity), NotAfter: end}
			seen := map[int64]bool{}
			for range 100 {
				at := p.endMoment()
				if early := time.Duration(end.UnixNano() - at); early < 0 || early > c.window {
					t.Fatalf("%v before the end, want at most %v", early, c.window)
				}
				seen[at/int64(time.Second)] = true
			}
			if len(seen) < 5 {
				t.Errorf("100 ends within %d seconds", len(seen))
			}
		})
	}
	late := Peer{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * time.Second)}
	for range 100 {
		if at := late.endMoment(); at < time.Now().Add(-time.Second).UnixNano() {
			t.Fatal("who comes in the last minute ends before it began")
		}
	}
	var forever Peer
	if at := forever.endMoment(); at <= time.Now().Add(87600*time.Hour).UnixNano() {
		t.Error("a client without a certificate has an end")
	}
}
