//go:build unix && !(linux && (amd64 || arm64))

package netio

import "syscall"

// readFD and writeFD make one system call each. errno is zero unless n is negative. The caller repeats a call that ends with
// EINTR.

func readFD(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	n, err := syscall.Read(int(fd), p)
	errno, _ = err.(syscall.Errno) // package syscall returns no other error
	return n, errno
}

func writeFD(fd uintptr, p []byte) (n int, errno syscall.Errno) {
	n, err := syscall.Write(int(fd), p)
	errno, _ = err.(syscall.Errno)
	return n, errno
}
