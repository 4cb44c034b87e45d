package proxy

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// restWatcher has one epoll instance for the sockets of all that rest. Safe for concurrent use.
type restWatcher struct {
	epoll *os.File // known to the runtime's own poller, so that no thread waits for it
	raw   syscall.RawConn
	ended chan struct{} // closed by watch

	mu      sync.Mutex
	resting map[int32]sleeper // by the descriptor of the socket; guarded by mu
}

// newRestWatcher returns nil where the kernel has no room for one: then no session rests.
func newRestWatcher() *restWatcher {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	return restWatcherOf(fd)
}

// restWatcherOf returns nil, and closes fd, where the runtime's own poller has not taken it, which os.NewFile does not tell:
// watch could not wait for it, and nobody would wake the sessions at rest.
func restWatcherOf(fd int) *restWatcher {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(noTime) != nil {
		f.Close()
		return nil
	}
	return &restWatcher{epoll: f, raw: raw, ended: make(chan struct{}), resting: make(map[int32]sleeper)}
}

// add has x woken once its peer sends something or leaves, which may be at once. It reports whether the kernel has agreed.
func (w *restWatcher) add(x sleeper) (ok bool) {
	x.socket().Control(func(fd uintptr) {
		w.mu.Lock()
		w.resting[int32(fd)], x.rester().as = x, int32(fd)
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

// remove forgets x. Its socket stays in the epoll instance until it is closed, which it may be already; after one
// event at most it is silent until add.
func (w *restWatcher) remove(x sleeper) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if as := x.rester().as; w.resting[as] == x {
		delete(w.resting, as)
	}
}

// watch has wake called for what rests until close.
func (w *restWatcher) watch(wake func(sleeper)) {
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
			x := w.resting[e.Fd]
			w.mu.Unlock()
			if x != nil {
				wake(x)
			}
		}
	}
}

func (w *restWatcher) close() {
	w.epoll.Close()
	<-w.ended
}
