//go:build unix && !linux

package proxy

import (
	"net"
	"syscall"
	"time"
)

// TCP_USER_TIMEOUT is Linux' own; elsewhere keepalive and the write timeout have to do.
func setUserTimeout(*net.TCPConn, time.Duration) {}

// tuneListener: not every system hands options down.
func tuneListener(syscall.RawConn, time.Duration, time.Duration) bool { return false }

// readable knows nothing here: what comes next is taken for what comes after.
func (s *socket) readable() bool { return false }

// hungUp knows nothing here; keepalive and the write timeout have to do.
func (s *socket) hungUp() (fin, broken bool) { return false, false }
