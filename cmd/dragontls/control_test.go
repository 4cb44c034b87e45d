//go:build unix

package main

import (
	"io"
	"os"
	"syscall"
	"testing"
)

// A request to drain is answered before it is followed. It must be followed although the process has as many signals to handle as it keeps.
func TestDrainIsFollowedWhenSignalsFillTheirQueue(t *testing.T) {
	s := steerable(t)
	for len(s.signals) < cap(s.signals) {
		s.signals <- syscall.SIGHUP
	}
	s.control().Drain("test")
	ended := make(chan int, 1)
	go func() { ended <- s.untilSignal(nil) }() // ends with the drain
	eventually(t, "it drains", func() bool { return len(ended) == 1 })
	if code := <-ended; code != exitOK || !s.draining.Load() {
		t.Errorf("got exit code %d", code)
	}
}

func TestRequestsToDrainLeaveRoomForSignals(t *testing.T) {
	s := steerable(t)
	for range cap(s.signals) + 1 {
		s.control().Drain("test")
	}
	if n := len(s.signals); n > 0 {
		t.Errorf("%d of %d places for signals are taken: a SIGTERM may be lost", n, cap(s.signals))
	}
}

// steerable is a service that does not serve, but follows signals and operators.
func steerable(t *testing.T) *service {
	t.Helper()
	s, err := unstarted(source{environ: newDeployment(t).env()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.server.Close)
	s.out = openLog(io.Discard, "json")
	t.Cleanup(s.out.close)
	s.signals, s.drainAsked, s.notifying = make(chan os.Signal, 4), make(chan struct{}, 1), make(chan struct{}, 1)
	return s
}
