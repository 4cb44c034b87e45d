//go:build linux && (amd64 || arm64)

package netio

import (
	"syscall"
	"unsafe"
)

// readFD and writeFD are system calls without a word to the scheduler: the descriptors do not block, so there is
// nothing to be scheduled for, and a thread less is woken for each. recvfrom and sendto cost the kernel less than
// read and write. p is not empty.

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
