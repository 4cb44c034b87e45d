//go:build linux

package certs

import (
	"os"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/reload"
)

// A user namespace has limits of its own (user_namespaces(7)): this one exhausts them without disturbing anybody else.
func TestWatchPollsWhileTheKernelHasNoInotifyLeft(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		inAnotherProcess(t, &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		})
		return
	}
	for limit, enough := range map[string]string{"instances": "10", "watches": "1000"} {
		t.Run(limit, func(t *testing.T) {
			f := newFixture(t)
			first := f.pair()
			f.writePair("server", first)
			allow := func(n string) { f.must(os.WriteFile("/proc/sys/user/max_inotify_"+limit, []byte(n), 0)) }
			allow("0")
			defer allow(enough)
			s := f.open()
			addr := f.serve(s.TLSConfig())
			f.watch(s, 10*time.Millisecond)
			f.wantServed(addr, first)
			next := f.pair()
			f.writePair("server", next)
			f.eventually("seen by the poll", func() bool { return s.Snapshot().Certs[0].Serial == next.serial(t) })
			f.wantServed(addr, next)
			if got := s.Stats().WatchMode; got != reload.ModePoll {
				t.Errorf("watch mode %q, want %q", got, reload.ModePoll)
			}
			if got := f.log.count("polling only"); got != 1 {
				t.Errorf("said %d times, want once", got)
			}
			allow(enough)
			f.eventually("events", func() bool { return s.Stats().WatchMode == reload.ModeEvents })
			if got := f.log.count("available again"); got != 1 {
				t.Errorf("said %d times that events are back, want once", got)
			}
		})
	}
}
