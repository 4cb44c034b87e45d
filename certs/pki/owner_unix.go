//go:build unix

package pki

import (
	"os"
	"syscall"
)

// keepOwner gives f the owner and group of the file at path, if there is one
// and we are allowed to: a key that root rotates must stay readable for its server.
func keepOwner(f *os.File, path string) {
	info, err := os.Stat(path)
	if err != nil {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if f.Chown(int(st.Uid), int(st.Gid)) != nil {
			_ = f.Chown(-1, int(st.Gid))
		}
	}
}
