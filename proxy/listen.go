package proxy

import (
	"context"
	"net"
	"syscall"
	"time"

	"dragontls/proxy/netio"
)

// listener is what Listen returns.
type listener struct {
	net.Listener
	tuned bool // its connections need no netio.Tune
}

// Listen returns a listener for Serve on a TCP address, such as ":6380". The durations are those of Config. On Linux, connections
// get their options from the listener, which saves each of them some ten system calls.
func Listen(address string, keepAlive, writeTimeout time.Duration) (net.Listener, error) {
	l := &listener{}
	c := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		l.tuned = netio.TuneListener(raw, keepAlive, writeTimeout)
		return nil
	}}
	c.SetMultipathTCP(false) // its sockets take not all of the options
	var err error
	if l.Listener, err = c.Listen(context.Background(), "tcp", address); err != nil {
		return nil, err
	}
	return l, nil
}
