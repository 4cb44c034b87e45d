package main

import (
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clock ticks at an interval. time.Ticker would be up to a millisecond late (the runtime's poller counts in
// milliseconds), and that would be taken for the peer's latency; a timerfd is exact to some 50 us.
type clock struct{ f *os.File }

func newClock(interval time.Duration) (*clock, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	every := unix.NsecToTimespec(int64(max(interval, time.Microsecond)))
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("timerfd_settime", err)
	}
	return &clock{os.NewFile(uintptr(fd), "timerfd")}, nil
}

// ticks waits for the next tick and returns how many there were since the last call.
func (c *clock) ticks() (uint64, error) {
	var b [8]byte
	if _, err := c.f.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

func (c *clock) close() { c.f.Close() }
