//go:build linux && (amd64 || arm64)

package netio

import (
	"syscall"
	"unsafe"
)

// readFD and writeFD make one system call each without telling Go's scheduler: the descriptors do not block, so the
// scheduler has nothing to do meanwhile, and does not wake a thread for each call. recvfrom and sendto cost the kernel less
// than read and write. p must not be empty. errno is zero unless n is negative. The caller repeats a call that ends with
// EINTR. hot

func readFD(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return int(r), errno
}

func writeFD(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_NOSIGNAL, 0, 0)
	return int(r), errno
}
