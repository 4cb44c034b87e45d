package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// nap is how a connection of the model sleeps. The runtime's own timers are up to a millisecond late, and a thread that sleeps
// in the kernel holds one of the runtime's processors meanwhile, so that few connections would work at the same time.
type nap struct {
	fd int // of f, which stays in non-blocking mode
	f  *os.File
}

func newNap() (*nap, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &nap{fd, os.NewFile(uintptr(fd), "timerfd")}, nil
}

// take returns when d is over.
func (n *nap) take(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	if err := unix.TimerfdSettime(n.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil); err != nil {
		return os.NewSyscallError("timerfd_settime", err)
	}
	var b [8]byte
	_, err := n.f.Read(b[:])
	return err
}

func (n *nap) close() { n.f.Close() }
