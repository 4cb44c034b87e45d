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
	for _, name := range []string{"", "ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key", "ca.crl"} {
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

	// One that was kept is handed over as well.
	other := filepath.Join(parent, "other")
	wantOK(t, "init", "--dir", other)
	wantOK(t, "client", "web", "--dir", other)
	wantOK(t, "init", "--if-missing", "--owner-from", parent, "--dir", other, "--key-mode", "0640")
	for name, mode := range map[string]os.FileMode{"server.key": 0o640, "client.key": 0o600, "web.key": 0o600} {
		info, err := os.Stat(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != owner || info.Mode().Perm() != mode {
			t.Errorf("%s: got %d %v, want %d %v", name, st.Uid, info.Mode().Perm(), owner, mode)
		}
	}

	if got := invoke(nil, "pki", "init", "--dir", filepath.Join(parent, "q"), "--owner-from", "/no/where"); got.code != exitFailed {
		t.Errorf("got %+v", got)
	}
}
