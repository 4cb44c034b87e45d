//go:build unix && !linux

package netio

import (
	"net"
	"syscall"
	"time"
)

// TCP_USER_TIMEOUT is Linux' own; elsewhere keepalive and the write timeout have to do.
func setUserTimeout(*net.TCPConn, time.Duration) {}

// TuneListener: not every system hands options down.
func TuneListener(syscall.RawConn, time.Duration, time.Duration) bool { return false }
