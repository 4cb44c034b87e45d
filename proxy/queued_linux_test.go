package proxy

import "syscall"

// unacknowledged returns how many bytes a socket has sent that its peer's kernel has not acknowledged.
func unacknowledged(c syscall.Conn) int32 { return queued(c, syscall.TIOCOUTQ) }

// unread returns how many bytes a socket has received that its owner has not read.
func unread(c syscall.Conn) int32 { return queued(c, syscall.TIOCINQ) }
