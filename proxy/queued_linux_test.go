package proxy

import (
	"syscall"
	"unsafe"
)

// unacknowledged returns how many bytes a socket has sent that its peer's kernel has not acknowledged.
func unacknowledged(c syscall.Conn) int32 { return queued(c, syscall.TIOCOUTQ) }

// unread returns how many bytes a socket has received that its owner has not read.
func unread(c syscall.Conn) int32 { return queued(c, syscall.TIOCINQ) }

func queued(c syscall.Conn, request uintptr) (n int32) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&n)))
	})
	return n
}
