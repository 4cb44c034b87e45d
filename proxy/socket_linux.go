package proxy

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func setUserTimeout(c *net.TCPConn, d time.Duration) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// readable says that a read would not wait. Nobody else reads.
func (s *socket) readable() (yes bool) {
	s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		yes = n > 0 && err == nil
	})
	return yes
}

// hungUp looks at a socket that nobody reads: fin, the peer sends no more; broken, it is gone.
func (s *socket) hungUp() (fin, broken bool) {
	s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(p, 0); n > 0 && err == nil {
			fin = p[0].Revents&unix.POLLRDHUP != 0
			broken = p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		}
	})
	return fin, broken
}
