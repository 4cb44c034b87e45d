//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// giveAway makes the owner of the path from the owner of dir and of the PKI's files
// in it. Their group is ours; files made later inherit it. A keyMode other than
// zero is set on server.key, so that our group can read one that was made without it.
func giveAway(dir, from string, keyMode os.FileMode) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("owner of %q is unknown", from)
	}
	for _, pattern := range []string{"*.crt", "*.key", "*.crl"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.Lchown(path, int(owner.Uid), os.Getgid()); err != nil {
				return err
			}
		}
	}
	// Not through a symlink: we may be root, and the directory another user's.
	key := filepath.Join(dir, "server.key")
	if info, err := os.Lstat(key); err == nil && info.Mode().IsRegular() && keyMode != 0 {
		if err := os.Chmod(key, keyMode); err != nil {
			return err
		}
	}
	// In this order: the group must be ours for the kernel to let us set the bit, and
	// a change of owner does not clear it on a directory.
	if err := os.Chown(dir, -1, os.Getgid()); err != nil {
		return err
	}
	info, err = os.Stat(dir)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, info.Mode().Perm()|os.ModeSetgid); err != nil {
		return err
	}
	return os.Chown(dir, int(owner.Uid), -1)
}
