package reload

import (
	"context"
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
	f.write("p/a/x/file", "1")
	w := &watcher{Files: f.open("p/a/x/file"), dirs: map[string]os.FileInfo{}}
	defer w.close()
	w.sync()
	f.must(os.Rename(f.path("p/a"), f.path("p/b")))
	f.write("p/a/x/file", "2")
	w.sync()
	f.write("p/a/x/file", "")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !w.wait(ctx, nil) {
		t.Error("no event from the new directory")
	}
}

func TestABusyDirectoryCannotDelayAReload(t *testing.T) {
	f := newFixture(t)
	f.write("file", "1")
	f.watch(f.open("file"), time.Hour)
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
	f.rename("file", "2")
	f.eventually("new content in use", func() bool { return f.inUse.Load() == "2" })
}

func TestWatchPollsWhileEventsFailAndSaysSoOnce(t *testing.T) {
	f := newFixture(t)
	f.write("file", "1")
	files := f.open("file")
	var failing atomic.Bool
	var tries atomic.Int32
	failing.Store(true)
	files.NewWatcher = func() (*fsnotify.Watcher, error) {
		tries.Add(1)
		if failing.Load() {
			return nil, syscall.EMFILE
		}
		return fsnotify.NewWatcher()
	}
	f.watch(files, 5*time.Millisecond)
	f.eventually("several tries", func() bool { return tries.Load() > 3 })
	if got := files.Stats().WatchMode; got != ModePoll {
		t.Errorf("watch mode %q, want %q", got, ModePoll)
	}
	if got := f.log.count("polling only"); got != 1 {
		t.Errorf("said %d times, want once", got)
	}
	failing.Store(false)
	f.eventually("events", func() bool { return files.Stats().WatchMode == ModeEvents })
}

func TestWatchPollsWhenNoWatchCanBeAdded(t *testing.T) {
	f := newFixture(t)
	f.write("file", "1")
	files := f.open("file")
	files.NewWatcher = func() (*fsnotify.Watcher, error) {
		w, err := fsnotify.NewWatcher()
		if err == nil {
			err = w.Close() // Add now fails, as with a full table
		}
		return w, err
	}
	f.watch(files, 5*time.Millisecond)
	f.write("file", "2")
	f.eventually("new content in use", func() bool { return f.inUse.Load() == "2" })
	if got := files.Stats().WatchMode; got != ModePoll {
		t.Errorf("watch mode %q, want %q", got, ModePoll)
	}
}
