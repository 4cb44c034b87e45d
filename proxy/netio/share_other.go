//go:build !linux

package netio

import "syscall"

// ShareAddress does nothing and reports false: only on Linux is it known which of several listeners gets a connection.
func ShareAddress(syscall.RawConn) bool { return false }

// LeadToSuccessor does nothing and reports false, as ShareAddress does.
func LeadToSuccessor(syscall.RawConn) bool { return false }

// LeadNowhere does nothing and reports false.
func LeadNowhere(syscall.RawConn) bool { return false }

// DropNewcomers does nothing and reports false.
func DropNewcomers(syscall.RawConn) bool { return false }

// AcceptsMore reports false: the accept queue cannot be looked into.
func AcceptsMore(syscall.RawConn) bool { return false }
