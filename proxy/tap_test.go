package proxy

import (
	"net"
	"syscall"
	"testing"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// taps are what the system calls of a socket go through. Each is given the call and returns what it says; nil: nothing is between.
type taps struct {
	syscall.RawConn
	read, write func(call func() (done bool)) (done bool)
}

func (t taps) Read(f func(fd uintptr) bool) error { return t.RawConn.Read(through(t.read, f)) }

func (t taps) Write(f func(fd uintptr) bool) error { return t.RawConn.Write(through(t.write, f)) }

func through(tap func(func() bool) bool, f func(fd uintptr) bool) func(fd uintptr) bool {
	if tap == nil {
		return f
	}
	return func(fd uintptr) bool { return tap(func() bool { return f(fd) }) }
}

type tappedConn struct {
	net.Conn
	on taps
}

func (c tappedConn) SyscallConn() (syscall.RawConn, error) { return c.on, nil }

// tap puts taps on a connection without TLS that nobody uses yet.
func tap(t testing.TB, c *backend.Conn, on taps) {
	t.Helper()
	var err error
	if on.RawConn, err = c.Socket.Conn.(syscall.Conn).SyscallConn(); err != nil {
		t.Fatal(err)
	}
	sock, err := netio.NewSocket(tappedConn{c.Socket.Conn, on}, c.Socket.Account(), c.Socket.WriteTimeout)
	if err != nil {
		t.Fatal(err)
	}
	c.Carry(sock, nil)
}
