//go:build unix

package reload

import (
	"fmt"
	"os"
	"syscall"
)

// describe returns what decides whether this process may read the file: the mode and the owner of
// the file, and our user and group.
func describe(path string) string {
	us := fmt.Sprintf("we are uid %d, gid %d", os.Geteuid(), os.Getegid())
	info, err := os.Stat(path)
	if err != nil {
		return us
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("mode %v, owner %d:%d; %s", info.Mode(), st.Uid, st.Gid, us)
	}
	return fmt.Sprintf("mode %v; %s", info.Mode(), us)
}

// Owner returns the owner and the group of a file; ok is false if the system does not tell.
func Owner(info os.FileInfo) (uid, gid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}
