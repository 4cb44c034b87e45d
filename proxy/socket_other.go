//go:build unix && !linux

package proxy

import (
	"net"
	"syscall"
	"time"
)

// TCP_USER_TIMEOUT is Linux' own; elsewhere keepalive and the write timeout have to do.
func setUserTimeout(*net.TCPConn, time.Duration) {}

func readFD(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

func writeFD(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Write(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
