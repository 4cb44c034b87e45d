package proxytest

import (
	"net"
	"syscall"
	"time"
	"unsafe"
)

// drained waits, for at most a second, until the peer's kernel has everything that was written.
func drained(c net.Conn) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	for range 1000 {
		left := int32(0)
		_ = raw.Control(func(fd uintptr) {
			_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&left)))
		})
		if left == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
