package netio

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The owner of a socket may end and close it before it calls Remove.
func TestWatcherForgetsWhoseSocketIsClosed(t *testing.T) {
	t.Parallel()
	w := NewWatcher[string]()
	if w == nil {
		t.Fatal("there is no watcher")
	}
	go w.Watch(func(string) {}) // ends with Close
	defer w.Close()
	conn, _ := pair(t, "tcp", "127.0.0.1:0")
	s, err := NewSocket(conn, NewBuffers(0).NewAccount(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if !w.Add(s, "x") {
		t.Fatal("the kernel does not agree")
	}
	s.Abort()
	w.Remove(s, "x")
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.watched); n > 0 {
		t.Errorf("%d sockets are kept", n)
	}
}

// The Go runtime's poller does not accept files, nor anything else if the kernel has no room for another watch.
func TestThereIsNoWatcherThatNobodyCouldWaitFor(t *testing.T) {
	t.Parallel()
	fd, err := unix.Open(filepath.Join(t.TempDir(), "file"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if watcherOf[string](fd) != nil {
		t.Error("there is a watcher")
	}
}
