package netio

import (
	"net"
	"time"
)

// Tune sets what a long-lived connection needs: keepalive, and an end for peers that vanish with unacknowledged
// bytes. Linux counts a peer's closed window as silence, hence longer than the write timeout.
// keepAlive is how long a connection is idle before the first probe; 0: there are none. writeTimeout 0: such peers have no end.
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

// keepAliveCount: so many probes without an answer end a connection.
const keepAliveCount = 3

func userTimeout(writeTimeout time.Duration) time.Duration { return writeTimeout + 30*time.Second }
