package netio

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

// TuneListener sets on a listener what Tune sets on a connection; accepted connections inherit it. It reports whether that
// worked: if not, the caller must call Tune for each connection.
func TuneListener(raw syscall.RawConn, keepAlive, writeTimeout time.Duration) bool {
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
