package netio

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher has one epoll instance for sockets that no goroutine reads. A T is whom a socket belongs to. Safe for concurrent use.
type Watcher[T comparable] struct {
	epoll *os.File // known to the runtime's own poller, so that no thread waits for it
	raw   syscall.RawConn
	ended chan struct{} // closed by Watch

	mu      sync.Mutex
	watched map[int32]T // by the descriptor of the socket; guarded by mu
}

// NewWatcher returns nil where the kernel has no room for one. Its goroutine is Watch, which the caller starts.
func NewWatcher[T comparable]() *Watcher[T] {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	return watcherOf[T](fd)
}

// watcherOf returns nil, and closes fd, where the runtime's own poller has not taken it, which os.NewFile does not tell:
// Watch could not wait for it, and nobody would be woken.
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

// Add has x woken once the peer of its socket sends something or leaves, which may be at once. It reports whether the kernel has
// agreed.
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

// Remove forgets x. Its socket stays in the epoll instance until it is closed, which it may be already; after one
// event at most it is silent until Add.
func (w *Watcher[T]) Remove(s *Socket, x T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched[s.watchedAs] == x {
		delete(w.watched, s.watchedAs)
	}
}

// Watch calls wake for each x whose socket has something to say, until Close.
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

// Close ends Watch and waits for it.
func (w *Watcher[T]) Close() {
	w.epoll.Close()
	<-w.ended
}
