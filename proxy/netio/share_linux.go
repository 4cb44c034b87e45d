package netio

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ShareAddress lets other sockets of the same user listen on the address of a socket that is not bound yet (SO_REUSEPORT).
// It reports whether that worked.
func ShareAddress(raw syscall.RawConn) bool {
	return control(raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
}

// LeadToSuccessor has new connections go to the second of the sockets that listen on one address: the successor, if this
// socket is the first and so the oldest. Without a second socket nothing changes. It reports whether the system can do that.
func LeadToSuccessor(raw syscall.RawConn) bool {
	return attach(raw, unix.SO_ATTACH_REUSEPORT_CBPF, []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}})
}

// LeadNowhere takes back what LeadToSuccessor has done, through whichever of the sockets: the kernel chooses among them again.
func LeadNowhere(raw syscall.RawConn) bool {
	return control(raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0) })
}

// DropNewcomers has a listening socket ignore the first packet of every new connection. The peer sends it again after a second,
// to whichever socket listens then; connections that have begun go on. It reports whether that worked.
func DropNewcomers(raw syscall.RawConn) bool {
	const flags, syn, ack = 13, 0x02, 0x10 // in the TCP header, at which the filter's data begins
	return attach(raw, unix.SO_ATTACH_FILTER, []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
	})
}

// AcceptsMore reports whether a connection waits in the accept queue of a listening socket.
func AcceptsMore(raw syscall.RawConn) (more bool) {
	return control(raw, func(fd int) error {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(polled, 0); n == 0 || err != nil {
			return unix.EAGAIN
		}
		return nil
	})
}

func attach(raw syscall.RawConn, option int, filter []unix.SockFilter) bool {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return control(raw, func(fd int) error { return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &program) })
}

// control reports whether f could be called with the descriptor, and returned nil.
func control(raw syscall.RawConn, f func(fd int) error) bool {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return err == nil && failed == nil
}
