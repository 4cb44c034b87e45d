package netio

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher watches sockets that no goroutine reads, with one epoll instance. A T is the owner of a socket. Safe for
// concurrent use.
type Watcher[T comparable] struct {
	epoll *os.File // registered with the Go runtime's poller, so that no thread is blocked by waiting for it
	raw   syscall.RawConn
	ended chan struct{} // closed when Watch returns

	mu      sync.Mutex
	watched map[int32]T // by the socket's descriptor; guarded by mu
}

// NewWatcher returns nil if the kernel has no room for another epoll instance, or for watching it. The caller must run Watch
// in a goroutine.
func NewWatcher[T comparable]() *Watcher[T] {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	return watcherOf[T](fd)
}

// watcherOf makes a Watcher of an epoll descriptor. It closes fd and returns nil if the Go runtime's poller does not accept
// it: Watch could not wait for it, and no owner would be woken. os.NewFile does not report that.
func watcherOf[T comparable](fd int) *Watcher[T] {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(time.Time{}) != nil {
		f.Close()
		return nil
	}
	return &Watcher[T]{epoll: f, raw: raw, ended: make(chan struct{}), watched: make(map[int32]T)}
}

// Add makes Watch wake x once, when the peer of its socket sends something or leaves. That may happen before Add returns. It
// reports whether the kernel has accepted the socket.
func (w *Watcher[T]) Add(s *Socket, x T) (ok bool) {
	s.raw.Control(func(fd uintptr) {
		w.mu.Lock()
		w.watched[int32(fd)], s.watchedAs = x, int32(fd)
		w.mu.Unlock()
		e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
		w.raw.Control(func(epoll uintptr) {
			err := unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, int(fd), &e)
			if errors.Is(err, unix.EEXIST) {
				err = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_MOD, int(fd), &e)
			}
			ok = err == nil
		})
	})
	return ok
}

// Remove forgets x. The socket, which may be closed already, stays in the epoll instance until it is closed. It causes one
// event at most, which Watch ignores, before it is added again.
func (w *Watcher[T]) Remove(s *Socket, x T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched[s.watchedAs] == x {
		delete(w.watched, s.watchedAs)
	}
}

// Watch calls wake for each owner whose socket has an event, until Close. It is the Watcher's goroutine.
func (w *Watcher[T]) Watch(wake func(x T)) {
	defer close(w.ended)
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		if w.raw.Read(func(epoll uintptr) bool {
			err := error(unix.EINTR)
			for errors.Is(err, unix.EINTR) {
				n, err = unix.EpollWait(int(epoll), events, 0)
			}
			return n != 0 || err != nil
		}) != nil || n < 0 {
			return
		}
		for _, e := range events[:n] {
			w.mu.Lock()
			x, ok := w.watched[e.Fd]
			w.mu.Unlock()
			if ok {
				wake(x)
			}
		}
	}
}

// Close ends Watch and waits for it to return.
func (w *Watcher[T]) Close() {
	w.epoll.Close()
	<-w.ended
}
