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
	full int // a socket that takes no byte

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
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all[c.RemoteAddr().String()] = one
	return one, nil
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
	until        time.Time     // the deadline of writes
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

// before has f look at each write from here on before any byte of it is taken.
func (g *gate) before(f func()) { g.change(func() { g.look = f }) }

func (g *gate) Close() error {
	g.change(func() { g.closed = true })
	return g.TCPConn.Close()
}

func (g *gate) SetWriteDeadline(t time.Time) error {
	g.change(func() { g.until = t })
	return g.TCPConn.SetWriteDeadline(t)
}

func (g *gate) SetDeadline(t time.Time) error {
	g.change(func() { g.until = t })
	return g.TCPConn.SetDeadline(t)
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
		r.g.mu.Lock()
		shut := r.g.shut
		r.g.mu.Unlock()
		if !shut {
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

// wait returns when the gate is open, or with the error of a write that its deadline or the end of the socket ends.
func (g *gate) wait() error {
	for {
		g.mu.Lock()
		shut, closed, until, changed := g.shut, g.closed, g.until, g.changed
		g.mu.Unlock()
		late := make(<-chan time.Time)
		switch {
		case closed:
			return net.ErrClosed
		case !shut:
			return nil
		case !until.IsZero():
			left := time.Until(until)
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
