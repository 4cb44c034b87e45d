//go:build !linux

package main

import "syscall"

// ownGroup puts a process into a group of its own, so that Ctrl-C in a terminal reaches us alone.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func newPinner() func(bool) { return nil }
