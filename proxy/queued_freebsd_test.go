package proxy

import "syscall"

// From FreeBSD's sys/filio.h.
const (
	fionread  = 0x4004667f
	fionwrite = 0x40046677
)

// unacknowledged returns how many bytes a socket has sent that its peer's kernel has not acknowledged.
func unacknowledged(c syscall.Conn) int32 { return queued(c, fionwrite) }

// unread returns how many bytes a socket has received that its owner has not read.
func unread(c syscall.Conn) int32 { return queued(c, fionread) }
