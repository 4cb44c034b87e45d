package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup puts a process into a group of its own, so that Ctrl-C in a terminal reaches us alone, and has the kernel
// end it when we are gone.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// newPinner returns what gives the calling thread the first CPU, for a client, or all others; nil where there is no
// second one.
func newPinner() func(client bool) {
	var all, clients, others unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil || all.Count() < 2 {
		return nil
	}
	for cpu := range 64 * len(all) {
		switch {
		case !all.IsSet(cpu):
		case clients.Count() == 0:
			clients.Set(cpu)
		default:
			others.Set(cpu)
		}
	}
	return func(client bool) {
		mine := &others
		if client {
			mine = &clients
		}
		_ = unix.SchedSetaffinity(0, mine) // not permitted: they share
	}
}
