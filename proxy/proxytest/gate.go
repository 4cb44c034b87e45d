package proxytest

import (
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Gate is a socket that takes nothing while it is shut, whatever room the kernel has for it: then it is the full socket to
// which a write's bytes are offered.
type Gate struct {
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

// NewGate is an open gate in front of a connection. full is a FullSocket.
func NewGate(c *net.TCPConn, full int) *Gate {
	return &Gate{TCPConn: c, full: uintptr(full), changed: make(chan struct{})}
}

func (g *Gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

// Stop shuts the gate, and Open opens it.
func (g *Gate) Stop() { g.change(func() { g.shut = true }) }
func (g *Gate) Open() { g.change(func() { g.shut = false }) }

// Admit lets one write pass: what it is about to write at once, which for crypto/tls is one record.
func (g *Gate) Admit() { g.change(func() { g.admitted++ }) }

// Pass lets so much of the time to the deadline pass: the gate alone ends a write that waits here.
func (g *Gate) Pass(d time.Duration) { g.change(func() { g.passed += d }) }

// Deadline is that of writes, whatever was passed of its time.
func (g *Gate) Deadline() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until
}

// Waited is how many writes have waited here. One that waits has been given its deadline.
func (g *Gate) Waited() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waits
}

// Before has f look at each write from here on before any byte of it is taken.
func (g *Gate) Before(f func()) { g.change(func() { g.look = f }) }

func (g *Gate) Close() error {
	g.change(func() { g.closed = true })
	return g.TCPConn.Close()
}

func (g *Gate) SetWriteDeadline(t time.Time) error {
	g.setUntil(t)
	return g.TCPConn.SetWriteDeadline(t)
}

func (g *Gate) SetDeadline(t time.Time) error {
	g.setUntil(t)
	return g.TCPConn.SetDeadline(t)
}

func (g *Gate) setUntil(t time.Time) {
	g.change(func() { g.until, g.passed = t, 0 })
}

func (g *Gate) SyscallConn() (syscall.RawConn, error) {
	raw, err := g.TCPConn.SyscallConn()
	return gateRaw{raw, g}, err
}

type gateRaw struct {
	syscall.RawConn
	g *Gate
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
func (g *Gate) lets() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut && g.admitted > 0 {
		g.admitted--
		return true
	}
	return !g.shut
}

// wait returns when a write may pass, or with the error of one that its deadline or the end of the socket ends.
func (g *Gate) wait() error {
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

// FullSocket takes no byte, and nobody reads what it holds.
func FullSocket(t testing.TB) int {
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
