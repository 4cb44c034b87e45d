//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// giveAway makes the owner of the path from the owner of dir and of the files that
// init has just made there. Their group is ours; files made later inherit it.
func giveAway(dir, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("owner of %q is unknown", from)
	}
	for _, name := range []string{"ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"} {
		if err := os.Lchown(filepath.Join(dir, name), int(owner.Uid), os.Getgid()); err != nil {
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
