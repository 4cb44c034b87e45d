package proxy

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

// notices keeps what a Server tells.
type notices struct {
	mu  sync.Mutex
	all []Notice
}

func (n *notices) take(one Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, one)
}

func (n *notices) told() []Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// wantOne waits for the only notice.
func (n *notices) wantOne(t *testing.T) Notice {
	t.Helper()
	eventually(t, "a notice", func() bool { return len(n.told()) > 0 })
	if all := n.told(); len(all) != 1 {
		t.Fatalf("got %+v, want one", all)
	}
	return n.told()[0]
}

func TestNoticesTellOfRefusedHandshakes(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		told := &notices{}
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { c.Notice = told.take })
		other, err := pki.NewCA("somebody else's")
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := other.Issue(pki.Leaf{CN: "stranger\u202e", Client: true})
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		config := testPKI().clientConfig()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		if c, err := tls.Dial("tcp", h.addr, config); err == nil {
			newWire(t, c).wantEnd()
		}
		h.dialAndLeave() // a port scan is no event
		got := told.wantOne(t)
		if !got.Refused || got.Reason != handshakeUnknownCA || got.Client != "CN=stranger?" || got.Serial == "" || !got.From.IsLoopback() || got.Error == "" {
			t.Errorf("got %+v", got)
		}
	})
}

// dialAndLeave connects, says nothing and leaves, and waits until that is counted.
func (h *harness) dialAndLeave() {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	c.Close()
	eventually(h.t, "it is counted", func() bool { return h.refused(handshakeClosed) == 1 })
}

func TestNoticesTellWhySessionsWereClosed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		told, j := &notices{}, &judgement{}
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { c.Notice, c.Recheck = told.take, j.recheck })
		leaving, bad := h.dialAs("leaving"), h.dialAs("bad")
		leaving.do("+OK\r\n", "QUIT")
		leaving.wantEnd()
		h.wantClosed(closeQuit, 1)
		bad.do("+PONG\r\n", "PING")
		j.set(func(j *judgement) { j.lost = map[string]string{"bad": handshakeRevoked} })
		h.Recheck()
		bad.wantEnd()
		if got := told.wantOne(t); got.Refused || got.Reason != string(closeRevoked) || got.Client != "bad" || got.Serial == "" || !got.From.IsLoopback() {
			t.Errorf("got %+v", got)
		}
	})
}

func TestNoticesTellThatTheServerIsFull(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		told := &notices{}
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) { c.Notice, c.MaxConnections = told.take, 1 })
		h.dial().do("+PONG\r\n", "PING")
		h.dial().wantEnd()
		if got := told.wantOne(t); got.Refused || got.Reason != string(closeFull) || got.Client != "CN=client" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestBackendInfo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		h := m.start(t, d.Addr(), nil)
		eventually(t, "the backend is up", func() bool { return h.Backend().Up })
		h.dial().do("$-1\r\n", "GET", "k")
		got := h.Backend()
		if got.URL != "redis://"+d.Addr() || got.Address != d.Addr() || got.Since.IsZero() || got.Ping <= 0 || got.Lanes+got.Own == 0 {
			t.Errorf("got %+v", got)
		}
		d.Close()
		h.ahead.Add(time.Minute) // the last answer is old
		eventually(t, "the backend is down", func() bool { return !h.Backend().Up })
		if down := h.Backend(); !down.Since.After(got.Since) {
			t.Errorf("got %+v before and %+v after its end", got, down)
		}
	})
}
