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

// tuneListener sets on a listener what tune sets on a connection, which each connection gets from it. It reports whether that
// has worked.
func tuneListener(raw syscall.RawConn, keepAlive, writeTimeout time.Duration) bool {
	options := map[[2]int]int{}
	if keepAlive > 0 {
		options[[2]int{unix.SOL_SOCKET, unix.SO_KEEPALIVE}] = 1
		options[[2]int{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}] = seconds(keepAlive)
		options[[2]int{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}] = seconds(keepAlive / keepAliveCount)
		options[[2]int{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}] = keepAliveCount
	}
	if writeTimeout > 0 {
		options[[2]int{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}] = int(userTimeout(writeTimeout).Milliseconds())
	}
	ok := true
	err := raw.Control(func(fd uintptr) {
		for option, value := range options {
			ok = unix.SetsockoptInt(int(fd), option[0], option[1], value) == nil && ok
		}
	})
	return ok && err == nil
}

// seconds rounds up, as SetKeepAliveConfig does.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

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
