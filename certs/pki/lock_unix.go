//go:build unix && !aix && !solaris

package pki

import (
	"os"
	"syscall"
)

// lock keeps other processes and goroutines that revoke in dir out until unlock: two that read the same CRL would
// lose one revocation. Where the file system knows no locks (some NFS) there is none.
func lock(dir string) (unlock func()) {
	d, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for syscall.Flock(int(d.Fd()), syscall.LOCK_EX) == syscall.EINTR {
	}
	return func() { d.Close() }
}
