//go:build linux && (amd64 || arm64)

package netio

import (
	"syscall"
	"unsafe"
)

// readFD and writeFD make system calls without telling Go's scheduler: the descriptors do not block, so the scheduler has
// nothing to do meanwhile, and does not wake a thread for each call. recvfrom and sendto cost the kernel less than read and
// write. p must not be empty.

func readFD(fd int, p []byte) (int, error) {
	return rawIO(syscall.SYS_RECVFROM, fd, p, 0)
}

func writeFD(fd int, p []byte) (int, error) {
	return rawIO(syscall.SYS_SENDTO, fd, p, syscall.MSG_NOSIGNAL)
}

func rawIO(call uintptr, fd int, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return -1, errno
		}
	}
}
