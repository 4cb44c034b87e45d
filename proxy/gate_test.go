package proxy

import (
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gates are the sockets of a Server's clients.
type gates struct {
	net.Listener
	full int  // a socket that takes no byte
	shut bool // the gates of clients to come are shut; set before the Server runs

	mu  sync.Mutex
	all map[string]*gate // by the client's address; guarded by mu
}

// newGates stands in front of a listener.
func newGates(t testing.TB, ln net.Listener) *gates {
	t.Helper()
	return &gates{Listener: ln, full: fullSocket(t), all: make(map[string]*gate)}
}

// fullSocket takes no byte, and nobody reads what it holds.
func fullSocket(t testing.TB) int {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(pair[0]); syscall.Close(pair[1]) })
	if err := syscall.SetNonblock(pair[0], true); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = syscall.Write(pair[0], make([]byte, 1))
	}
	if err != syscall.EAGAIN {
		t.Fatal(err)
	}
	return pair[0]
}

// newGate is an open one in front of a connection.
func newGate(c *net.TCPConn, full int) *gate {
	return &gate{TCPConn: c, full: uintptr(full), changed: make(chan struct{})}
}

func (g *gates) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	one := newGate(c.(*net.TCPConn), g.full)
	one.shut = g.shut
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all[c.RemoteAddr().String()] = one
	return one, nil
}

// startGated is start with gates in front of the clients.
func (m mode) startGated(t testing.TB, backend string, change func(*Config)) (h *harness, all *gates) {
	t.Helper()
	h = startBehind(t, backend, m.with(change), nil, func(ln net.Listener) net.Listener {
		all = newGates(t, ln)
		return all
	})
	return h, all
}

// of is the gate of a client.
func (g *gates) of(w *wire) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all[w.LocalAddr().String()]
}

// gate is a socket that takes nothing while it is shut, whatever room the kernel has for it: then it is the full socket to
// which a write's bytes are offered.
type gate struct {
	*net.TCPConn
	full uintptr

	mu sync.Mutex
	// guarded by mu
	shut, closed bool
	admitted     int           // so many writes pass although it is shut
	waits        int           // how often a write has begun to wait
	until        time.Time     // the deadline of writes
	passed       time.Duration // since it was set, besides what has passed on the clock
	look         func()        // called before each write that begins; nil: nothing is
	changed      chan struct{} // closed at each change
}

func (g *gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) stop() { g.change(func() { g.shut = true }) }
func (g *gate) open() { g.change(func() { g.shut = false }) }

// admit lets one write pass: what it is about to write at once, which for crypto/tls is one record.
func (g *gate) admit() { g.change(func() { g.admitted++ }) }

// pass lets so much of the time to the deadline pass: the gate alone ends a write that waits here.
func (g *gate) pass(d time.Duration) { g.change(func() { g.passed += d }) }

// deadline is that of writes, whatever was passed of its time.
func (g *gate) deadline() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until
}

// waited is how many writes have waited here. One that waits has been given its deadline.
func (g *gate) waited() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waits
}

// before has f look at each write from here on before any byte of it is taken.
func (g *gate) before(f func()) { g.change(func() { g.look = f }) }

func (g *gate) Close() error {
	g.change(func() { g.closed = true })
	return g.TCPConn.Close()
}

func (g *gate) SetWriteDeadline(t time.Time) error {
	g.setUntil(t)
	return g.TCPConn.SetWriteDeadline(t)
}

func (g *gate) SetDeadline(t time.Time) error {
	g.setUntil(t)
	return g.TCPConn.SetDeadline(t)
}

func (g *gate) setUntil(t time.Time) {
	g.change(func() { g.until, g.passed = t, 0 })
}

func (g *gate) SyscallConn() (syscall.RawConn, error) {
	raw, err := g.TCPConn.SyscallConn()
	return gateRaw{raw, g}, err
}

type gateRaw struct {
	syscall.RawConn
	g *gate
}

func (r gateRaw) Write(f func(fd uintptr) bool) error {
	r.g.mu.Lock()
	look := r.g.look
	r.g.mu.Unlock()
	if look != nil {
		look()
	}
	for {
		if r.g.lets() {
			return r.RawConn.Write(f)
		}
		if f(r.g.full) {
			return nil
		}
		if err := r.g.wait(); err != nil {
			return err
		}
	}
}

// lets reports whether the write that asks may pass.
func (g *gate) lets() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut && g.admitted > 0 {
		g.admitted--
		return true
	}
	return !g.shut
}

// wait returns when a write may pass, or with the error of one that its deadline or the end of the socket ends.
func (g *gate) wait() error {
	g.mu.Lock()
	g.waits++
	g.mu.Unlock()
	for {
		g.mu.Lock()
		shut, closed, until, changed := g.shut && g.admitted == 0, g.closed, g.until, g.changed
		left := time.Until(until) - g.passed
		g.mu.Unlock()
		late := make(<-chan time.Time)
		switch {
		case closed:
			return net.ErrClosed
		case !shut:
			return nil
		case !until.IsZero():
			if left <= 0 {
				return os.ErrDeadlineExceeded
			}
			late = time.After(left)
		}
		select {
		case <-changed:
		case <-late:
		}
	}
}
