package proxy

import (
	"net"
	"sync"
	"testing"

	"dragontls/proxy/proxytest"
)

// gates are the sockets of a Server's clients.
type gates struct {
	net.Listener
	full int  // a socket that takes no byte
	shut bool // the gates of clients to come are shut; set before the Server runs

	mu  sync.Mutex
	all map[string]*proxytest.Gate // by the client's address; guarded by mu
}

// newGates stands in front of a listener.
func newGates(t testing.TB, ln net.Listener) *gates {
	t.Helper()
	return &gates{Listener: ln, full: proxytest.FullSocket(t), all: make(map[string]*proxytest.Gate)}
}

func (g *gates) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	one := proxytest.NewGate(c.(*net.TCPConn), g.full)
	if g.shut {
		one.Stop()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all[c.RemoteAddr().String()] = one
	return one, nil
}

// startGated is start with gates in front of the clients.
func (m mode) startGated(t testing.TB, backend string, change func(*Config)) (h *harness, all *gates) {
	t.Helper()
	h = startBehind(t, backend, m.with(change), func(ln net.Listener) net.Listener {
		all = newGates(t, ln)
		return all
	})
	return h, all
}

// of is the gate of a client.
func (g *gates) of(w *wire) *proxytest.Gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all[w.LocalAddr().String()]
}
