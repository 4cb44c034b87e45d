//go:build unix

package admin

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "dt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func reaches(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func TestSocketReplacesOnlyWhatNobodyServes(t *testing.T) {
	path := filepath.Join(shortDir(t), "admin.sock")
	first, err := listenUnix(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode || info.Mode().Type() != os.ModeSocket {
		t.Errorf("got %v, %v", info, err)
	}
	if _, err := listenUnix(path, false); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
		t.Errorf("a second process: got %v", err)
	}
	younger, err := listenUnix(path, true)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if !reaches(path) {
		t.Error("the older process has removed the path of the younger one")
	}
	younger.(*socket).UnixListener.Close() // as kill -9: the path stays
	if _, err := os.Lstat(path); err != nil || reaches(path) {
		t.Fatalf("the socket is not stale: %v", err)
	}
	next, err := listenUnix(path, false)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if !reaches(path) || next.Addr().String() != path {
		t.Errorf("cannot reach %s", next.Addr())
	}
	next.Close()
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSocketLeavesOtherFilesAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, true); err == nil || !strings.Contains(err.Error(), "something else than a socket") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "data" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := listenUnix(filepath.Join(filepath.Dir(path), "missing", "s"), false); err == nil {
		t.Error("a missing directory is no fault")
	}
}

// The service manager may open a socket to everybody: a token is wanted there.
func TestSocketForEverybodyIsNotPrivate(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for mode, want := range map[os.FileMode]bool{0o666: false, 0o777: false, 0o660: true, 0o600: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := isPrivate(l); got != want {
			t.Errorf("%o: got %v", mode, got)
		}
	}
}
