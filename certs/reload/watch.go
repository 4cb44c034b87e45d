package reload

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	defaultInterval = 10 * time.Second

	// After an event the files are read once it has been quiet for debounce, at
	// the latest maxDebounce after the first event: a directory that never comes
	// to rest still gets its reload, a busy one costs two reloads a second.
	debounce    = 75 * time.Millisecond
	maxDebounce = 500 * time.Millisecond
)

// The values of Stats.WatchMode while Watch runs.
const (
	ModeEvents = "events+poll"
	ModePoll   = "poll" // file events are not available, for some of the directories at least
)

// Watch reloads on file events and at least every interval (zero: 10 s). It returns when ctx
// ends. Events are a hint only: whatever comes, everything is read.
func (f *Files) Watch(ctx context.Context, interval time.Duration) {
	if interval <= 0 {
		interval = defaultInterval
	}
	w := &watcher{Files: f, dirs: map[string]os.FileInfo{}}
	defer w.close()
	poll := time.NewTicker(interval)
	defer poll.Stop()
	for {
		w.sync()
		f.tickInTurn()
		_, _ = f.Reload(false) // logged and counted there
		if !w.wait(ctx, poll.C) {
			return
		}
	}
}

// watcher keeps an fsnotify.Watcher on the directories that matter now. The
// goroutine of Watch owns it.
type watcher struct {
	*Files
	notify *fsnotify.Watcher      // nil if none could be made
	dirs   map[string]os.FileInfo // what is watched, and which directory the name meant then
	mode   string
}

// sync watches what the paths lead through now. Adding a watch may come too late for
// a change just before it, so it walks again until a walk finds nothing new.
func (w *watcher) sync() {
	if w.notify == nil {
		notify, err := w.makeWatcher()
		if err != nil {
			w.setMode(ModePoll, err)
			return
		}
		w.notify = notify
	}
	var failed error
	for range 3 {
		added := false
		want := watchDirs(w.Paths)
		watched := w.notify.WatchList()
		for dir, was := range w.dirs {
			if now, err := os.Stat(dir); err != nil || !os.SameFile(was, now) || !slices.Contains(watched, dir) || !slices.Contains(want, dir) {
				_ = w.notify.Remove(dir) // gone by itself when the directory went
				delete(w.dirs, dir)
			}
		}
		failed = nil
		for _, dir := range want {
			if w.dirs[dir] != nil {
				continue
			}
			info, err := os.Stat(dir)
			if err == nil {
				err = w.notify.Add(dir)
			}
			switch {
			case err == nil:
				w.dirs[dir] = info
				added = true
			case errors.Is(err, os.ErrNotExist):
				added = true // it went just now: its parent is next
			default:
				failed = err
			}
		}
		if !added {
			break
		}
	}
	if failed != nil {
		w.setMode(ModePoll, failed)
		return
	}
	w.setMode(ModeEvents, nil)
}

func (w *watcher) setMode(mode string, err error) {
	if mode == w.mode {
		return
	}
	switch {
	case mode == ModePoll:
		w.Log.Warn().Err(err).Msg("file events are not available, polling only")
	case w.mode == ModePoll:
		w.Log.Info().Msg("file events are available again")
	}
	w.mode = mode
	w.count(func(s *Stats) { s.WatchMode = mode })
}

// wait returns true when the files are to be read: after an interval, or some quiet
// after an event. It returns false when ctx has ended.
func (w *watcher) wait(ctx context.Context, poll <-chan time.Time) bool {
	var quiet, latest <-chan time.Time
	for {
		// A nil channel blocks: without a watcher only the poll comes.
		var events <-chan fsnotify.Event
		var faults <-chan error
		if w.notify != nil {
			events, faults = w.notify.Events, w.notify.Errors
		}
		open := true
		select {
		case <-ctx.Done():
			return false
		case <-poll:
			return true
		case <-quiet:
			return true
		case <-latest:
			return true
		case _, open = <-events:
		case _, open = <-faults: // most likely events were lost
		}
		if !open {
			w.notify, w.dirs = nil, map[string]os.FileInfo{}
			return true
		}
		if latest == nil {
			latest = time.After(maxDebounce)
		}
		quiet = time.After(debounce)
	}
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
	w.count(func(s *Stats) { s.WatchMode = "" })
}

func (f *Files) makeWatcher() (*fsnotify.Watcher, error) {
	if f.NewWatcher != nil {
		return f.NewWatcher()
	}
	return fsnotify.NewWatcher()
}

// TryEvents sets up file events for Paths, takes them down again, and returns what failed. dir is
// the directory that cannot be watched; it is empty if this process gets no events at all.
func (f *Files) TryEvents() (dir string, err error) {
	notify, err := f.makeWatcher()
	if err != nil {
		return "", err
	}
	defer notify.Close()
	for _, dir := range watchDirs(f.Paths) {
		if err := notify.Add(dir); err != nil {
			return dir, err
		}
	}
	return "", nil
}
