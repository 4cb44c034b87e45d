//go:build unix && !linux

package netio

import (
	"net"
	"syscall"
	"time"
)

// setUserTimeout does nothing: only Linux has TCP_USER_TIMEOUT. Elsewhere keepalive and the write timeout have to suffice.
func setUserTimeout(*net.TCPConn, time.Duration) {}

// TuneListener does nothing and reports false: not on every system do accepted connections inherit the options.
func TuneListener(syscall.RawConn, time.Duration, time.Duration) bool { return false }
