//go:build unix

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestPKIOwnerFrom(t *testing.T) {
	parent := t.TempDir()
	owner := os.Getuid()
	if owner == 0 { // only root can give files away
		owner = 1234
		if err := os.Chown(parent, owner, 1234); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(parent, "p")
	wantOK(t, "init", "--owner-from", parent, "--dir", dir, "--key-mode", "0640")
	for _, name := range []string{"", "ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != owner || int(st.Gid) != os.Getgid() {
			t.Errorf("%s: got %d:%d, want %d:%d", info.Name(), st.Uid, st.Gid, owner, os.Getgid())
		}
		if name == "" && info.Mode()&os.ModeSetgid == 0 {
			t.Errorf("new files do not inherit the group: %v", info.Mode())
		}
	}
	if got := invoke(nil, "pki", "init", "--dir", filepath.Join(parent, "q"), "--owner-from", "/no/where"); got.code != exitFailed {
		t.Errorf("got %+v", got)
	}
}
