//go:build unix

package config

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
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return us
	}
	return fmt.Sprintf("mode %#o, owner %d:%d; %s", info.Mode().Perm(), st.Uid, st.Gid, us)
}
