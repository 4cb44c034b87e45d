package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// UnixScheme begins an Options.Listen that is the path of a Unix socket.
	UnixScheme = "unix://"
	// socketMode lets only our user, and root, connect.
	socketMode = 0o600
	// askTimeout is how long to wait for a process that listens on a path we want. A connection to a Unix socket is accepted by the kernel.
	askTimeout = time.Second
)

// errServed is why a path is not taken: another process listens there.
var errServed = fmt.Errorf("another process listens there: %w", syscall.EADDRINUSE)

// socket is a Unix socket that owns its path until Close, or until another process takes the path over.
type socket struct {
	*net.UnixListener
	path   string
	made   fs.FileInfo
	closed sync.Once
}

// listenUnix opens a socket at path. A socket that nobody listens on any more is replaced, and one that somebody listens on only if takeOver
// is set; anything else at that path is left alone. The new socket replaces the old one by rename, so that no client finds nothing there.
func listenUnix(path string, takeOver bool) (net.Listener, error) {
	failed := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: err}
	}
	if err := mayReplace(path); err != nil && !(takeOver && errors.Is(err, errServed)) {
		return failed(err)
	}
	// Only our user can enter this directory: nobody connects before the mode is set.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".d")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	own := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: own, Net: "unix"})
	if err != nil {
		return failed(err)
	}
	l.SetUnlinkOnClose(false) // by then another name leads to it, and perhaps to the socket of another process
	s := &socket{UnixListener: l, path: path}
	if err = os.Chmod(own, socketMode); err == nil {
		if s.made, err = os.Lstat(own); err == nil {
			err = os.Rename(own, path)
		}
	}
	if err != nil {
		l.Close()
		return failed(err)
	}
	return s, nil
}

// mayReplace returns nil if nothing is at path, or a socket that nobody listens on.
func mayReplace(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something else than a socket")
	}
	conn, err := net.DialTimeout("unix", path, askTimeout)
	switch {
	case err == nil:
		conn.Close()
		return errServed
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded): // its queue is full
		return errServed
	}
	return err
}

// Addr has the path that clients use; the socket was bound to another one.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the path unless another process has taken it over.
func (s *socket) Close() error {
	s.closed.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
			os.Remove(s.path)
		}
	})
	return s.UnixListener.Close()
}

// isPrivate reports whether only users of this host that the operator has chosen can connect to l: over loopback, or over a Unix socket
// that not everybody may write to. The service manager may have made that socket.
func isPrivate(l net.Listener) bool {
	a, ok := l.Addr().(*net.UnixAddr)
	if !ok {
		return onLoopback(l.Addr())
	}
	info, err := os.Stat(a.Name)
	return err == nil && info.Mode().Perm()&0o002 == 0
}

// unixPath returns the path of an Options.Listen that is a Unix socket.
func unixPath(listen string) (path string, ok bool) { return strings.CutPrefix(listen, UnixScheme) }
