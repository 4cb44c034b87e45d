package main

import "syscall"

// ownGroup puts a process into a group of its own, so that Ctrl-C in a terminal reaches us alone, and has the kernel
// end it when we are gone.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
