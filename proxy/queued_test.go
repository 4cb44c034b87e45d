//go:build linux || freebsd

package proxy

import (
	"syscall"
	"unsafe"
)

// queued returns what an ioctl that counts bytes says of a socket.
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
