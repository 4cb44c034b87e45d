//go:build unix

package config

import "syscall"

// descriptorLimit is the soft limit of open files, which Go has raised to the
// hard one before main; 0 when unknown.
func descriptorLimit() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return uint64(r.Cur)
}
