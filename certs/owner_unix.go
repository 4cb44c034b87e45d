//go:build unix

package certs

import (
	"fmt"
	"os"
	"syscall"
)

// describe says what stands between us and the file: its mode, its owner, our uid.
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
