package netio

import (
	"net"
	"time"
)

// Tune sets on a connection what a long-lived one needs: keepalive, and an end for a peer that vanishes while bytes are not
// acknowledged. keepAlive is how long the connection is idle before the first probe; with 0 there are no probes. Such a peer
// is given up after writeTimeout plus 30 s, or never if writeTimeout is 0. It must be more than the write timeout, because
// Linux also counts the time for which a peer's window is closed.
func Tune(c net.Conn, keepAlive, writeTimeout time.Duration) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: keepAlive > 0, Idle: keepAlive, Interval: keepAlive / keepAliveCount, Count: keepAliveCount})
	if writeTimeout > 0 {
		setUserTimeout(t, userTimeout(writeTimeout))
	}
}

// keepAliveCount is how many probes without an answer end a connection.
const keepAliveCount = 3

func userTimeout(writeTimeout time.Duration) time.Duration { return writeTimeout + 30*time.Second }
