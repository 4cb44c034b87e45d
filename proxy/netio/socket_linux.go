package netio

import "golang.org/x/sys/unix"

// Readable reports whether a read would return without waiting. It reports false if the system cannot tell. The goroutine
// that reads calls it.
func (s *Socket) Readable() (yes bool) {
	s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		yes = n > 0 && err == nil
	})
	return yes
}

// HungUp checks a socket without reading from it: fin means that the peer sends no more, broken that the connection is gone.
// Both are false if the system cannot tell. Any goroutine may call it.
func (s *Socket) HungUp() (fin, broken bool) {
	s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(p, 0); n > 0 && err == nil {
			fin = p[0].Revents&unix.POLLRDHUP != 0
			broken = p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		}
	})
	return fin, broken
}
