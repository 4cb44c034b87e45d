package certs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A directory above moves without an event: the next poll must watch the new one.
func TestSyncWatchesWhatTheNameMeansNow(t *testing.T) {
	f := newFixture(t)
	f.writePair("p/a/x/server", f.pair())
	use(f, "p/a/x/server.crt", "p/a/x/server.key")
	w := &watcher{reloader: f.open().reloader, dirs: map[string]os.FileInfo{}}
	defer w.close()
	w.sync()
	f.must(os.Rename(f.path("p/a"), f.path("p/b")))
	f.writePair("p/a/x/server", f.pair())
	w.sync()
	f.write("p/a/x/server.crt", nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !w.wait(ctx, nil) {
		t.Error("no event from the new directory")
	}
}

func TestABusyDirectoryCannotDelayAReload(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	f.watch(s, time.Hour)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				_ = os.WriteFile(f.path("noise"), nil, 0o600)
			}
		}
	})
	defer busy.Wait()
	defer close(stop)
	next := f.pair()
	f.rename("server.key", next.key)
	f.rename("server.crt", next.cert)
	f.eventually("new pair in use", func() bool { return s.Snapshot().Certs[0].Serial == next.serial(t) })
}

func TestWatchPollsWhileEventsFailAndSaysSoOnce(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	var failing atomic.Bool
	var tries atomic.Int32
	failing.Store(true)
	s.reloader.newWatcher = func() (*fsnotify.Watcher, error) {
		tries.Add(1)
		if failing.Load() {
			return nil, syscall.EMFILE
		}
		return fsnotify.NewWatcher()
	}
	f.watch(s, 5*time.Millisecond)
	f.eventually("several tries", func() bool { return tries.Load() > 3 })
	if got := s.Stats().WatchMode; got != modePoll {
		t.Errorf("watch mode %q, want %q", got, modePoll)
	}
	if got := f.log.count("polling only"); got != 1 {
		t.Errorf("said %d times, want once", got)
	}
	failing.Store(false)
	f.eventually("events", func() bool { return s.Stats().WatchMode == modeEvents })
}

func TestWatchPollsWhenNoWatchCanBeAdded(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	s.reloader.newWatcher = func() (*fsnotify.Watcher, error) {
		w, err := fsnotify.NewWatcher()
		if err == nil {
			err = w.Close() // Add now fails, as with a full table
		}
		return w, err
	}
	f.watch(s, 5*time.Millisecond)
	next := f.pair()
	f.writePair("server", next)
	f.eventually("new pair in use", func() bool { return s.Snapshot().Certs[0].Serial == next.serial(t) })
	if got := s.Stats().WatchMode; got != modePoll {
		t.Errorf("watch mode %q, want %q", got, modePoll)
	}
}

func TestHandshakesNeverFailUnderReloads(t *testing.T) {
	f := newFixture(t)
	s := f.open()
	addr := f.serve(s.TLSConfig())
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 4)
	for range cap(failed) {
		clients.Go(func() {
			for ctx.Err() == nil {
				if _, err := dial(addr, f.clientConfig()); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	for range 30 {
		f.writePair("server", f.pair())
		if changed, err := s.Reload(); !changed || err != nil {
			t.Errorf("reload: changed %v, %v", changed, err)
		}
	}
	cancel()
	clients.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if got := s.Snapshot().Generation; got != 31 {
		t.Errorf("generation %d, want 31", got)
	}
}

func TestWhatNeverSettlesIsRefused(t *testing.T) {
	f := newFixture(t)
	f.write("still", []byte("x"))
	reads, settles := 0, 1000
	read := func() reading {
		reads++
		f.write("busy", fmt.Append(nil, min(reads, settles)))
		return readOnce([]string{f.path("busy"), f.path("still")})
	}
	c := settle(read)
	if _, err := c.get(f.path("busy")); !errors.Is(err, errUnsettled) || reasonOf(err) != ReasonUnreadable {
		t.Errorf("got %v, want %v", err, errUnsettled)
	}
	if _, err := c.get(f.path("still")); err != nil {
		t.Errorf("the other file: %v", err)
	}
	reads, settles = 0, 3
	if got, err := settle(read).get(f.path("busy")); string(got) != "3" || err != nil {
		t.Errorf("got %q, %v; want what two reads agreed on", got, err)
	}
}
