package main

import "golang.org/x/sys/unix"

// monotonicMicroseconds reads CLOCK_MONOTONIC, which service managers compare with their own.
func monotonicMicroseconds() (int64, bool) {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0, false
	}
	return now.Nano() / 1000, true
}
