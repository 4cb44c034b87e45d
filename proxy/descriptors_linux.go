package proxy

import (
	"os"
	"syscall"
)

// maxDescriptors is how many files this process may have open; 0 if that is not known.
func maxDescriptors() int64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return int64(min(r.Cur, 1<<62))
}

// openDescriptors is how many files this process has open, or -1 if that is not known. It reads a directory with an entry for each.
func openDescriptors() int64 {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return -1
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return int64(len(names)) - 1 // without d
}
