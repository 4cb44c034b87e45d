package proxy

import (
	"context"
	"net"
	"syscall"
	"time"
)

// listener is what Listen returns.
type listener struct {
	net.Listener
	tuned bool // its connections need no tune
}

// Listen returns a listener for Serve on a TCP address, such as ":6380". The durations are those of Config. On Linux, connections
// get their options from the listener, which saves each of them some ten system calls.
func Listen(address string, keepAlive, writeTimeout time.Duration) (net.Listener, error) {
	l := &listener{}
	c := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		l.tuned = tuneListener(raw, keepAlive, writeTimeout)
		return nil
	}}
	c.SetMultipathTCP(false) // its sockets take not all of the options
	var err error
	if l.Listener, err = c.Listen(context.Background(), "tcp", address); err != nil {
		return nil, err
	}
	return l, nil
}

// tune sets what a long-lived connection needs: keepalive, and an end for peers that vanish with unacknowledged
// bytes. Linux counts a peer's closed window as silence, hence longer than the write timeout.
func tune(c net.Conn, keepAlive, writeTimeout time.Duration) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: keepAlive > 0, Idle: keepAlive, Interval: keepAlive / keepAliveCount, Count: keepAliveCount})
	if writeTimeout > 0 {
		setUserTimeout(t, userTimeout(writeTimeout))
	}
}

// keepAliveCount: so many probes without an answer end a connection.
const keepAliveCount = 3

func userTimeout(writeTimeout time.Duration) time.Duration { return writeTimeout + 30*time.Second }
