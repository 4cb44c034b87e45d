package proxy

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dragontls/proxy/netio"
)

// An accepted connection has the same options whether the listener handed them down or Tune set them.
func TestConnectionsHaveTheirOptionsFromTheListener(t *testing.T) {
	t.Parallel()
	options := map[string][2]int{
		"SO_KEEPALIVE": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, "TCP_KEEPIDLE": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		"TCP_KEEPINTVL": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, "TCP_KEEPCNT": {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}, "TCP_NODELAY": {unix.IPPROTO_TCP, unix.TCP_NODELAY},
	}
	of := func(c net.Conn) map[string]int {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[string]int)
		raw.Control(func(fd uintptr) {
			for name, o := range options {
				if all[name], err = unix.GetsockoptInt(int(fd), o[0], o[1]); err != nil {
					t.Error(name, err)
				}
			}
		})
		return all
	}
	for _, d := range [][2]time.Duration{{31 * time.Second, 40 * time.Second}, {500 * time.Millisecond, 0}, {0, time.Second}} {
		ours, err := Listen("127.0.0.1:0", d[0], d[1])
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if !ours.tuned {
			t.Fatal("the kernel took not all options")
		}
		got, want := of(accepted(t, ours)), map[string]int(nil)
		c := accepted(t, theirs)
		netio.Tune(c, d[0], d[1])
		want = of(c)
		for name := range options {
			if keeps := want["SO_KEEPALIVE"] != 0; got[name] != want[name] && (keeps || name[:5] != "TCP_K") {
				t.Errorf("%v: %s is %d, want %d", d, name, got[name], want[name])
			}
		}
	}
}

// accepted returns the listener's side of a new connection.
func accepted(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	t.Cleanup(func() { ln.Close() })
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); a.Close() })
	return a
}

// What is in the accept queue when a listener hands over is accepted, and what comes later goes to the successor.
func TestHandOverLosesNoConnection(t *testing.T) {
	t.Parallel()
	last, err := Listen("127.0.0.1:0", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	address := last.Addr().String()
	if !IsServed(address) {
		t.Error("nobody seems to listen there")
	}
	const each = 20
	dial := func() {
		for range each {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
	}
	dial()
	successor, err := Listen(address, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	last.HandOver(time.Millisecond)
	dial()
	for range each {
		c, err := last.Accept()
		if err != nil {
			t.Fatalf("of what was in its queue: %v", err)
		}
		c.Close()
	}
	if c, err := last.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, %v of a listener that has handed over and has an empty queue", c, err)
	}
	for range each {
		c, err := successor.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	// A third listener does not get everything because the first one has led connections to the second.
	third, err := Listen(address, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	for range 3 {
		dial() // sixty connections: that none of them goes to one of two has a chance of 2^-59
	}
	for _, l := range []*Listener{successor, third} {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}
