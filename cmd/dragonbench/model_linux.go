package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepExactly has the kernel end sleeps of this thread when they are over, not up to 50 us later.
func sleepExactly() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

// sleepFor blocks the thread: the runtime's own timers are up to a millisecond late.
func sleepFor(d time.Duration) {
	if d <= 0 {
		return
	}
	left := unix.NsecToTimespec(int64(d))
	for unix.Nanosleep(&left, &left) == unix.EINTR {
	}
}
