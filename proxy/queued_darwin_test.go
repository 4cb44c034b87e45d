package proxy

import "syscall"

// unacknowledged returns how many bytes a socket has sent that its peer's kernel has not acknowledged.
func unacknowledged(c syscall.Conn) int { return queued(c, syscall.SO_NWRITE) }

// unread returns how many bytes a socket has received that its owner has not read.
func unread(c syscall.Conn) int { return queued(c, syscall.SO_NREAD) }

func queued(c syscall.Conn, option int) (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, option) })
	return n
}
