// Package reload reads a set of files, reads them again when they change, and has their owner
// take into use what they hold. If the owner refuses it, what was in use stays. This package knows
// files, times and faults; only the owner knows what the files mean.
package reload

import (
	"maps"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

// Stats counts what became of reloads.
type Stats struct {
	ReloadsOK        uint64            // new content taken into use
	ReloadsUnchanged uint64            // the files held what is in use already
	ReloadsFailed    map[string]uint64 // by the reason of the first fault; a fault that stays is counted once
	LastSuccess      time.Time         // when the files last held what is in use
	LastOK           bool              // the last reload was not refused
	WatchMode        string            // ModeEvents, ModePoll, or empty while nothing watches
}

// Files are read together and taken into use together. Set the exported fields, then call Open.
// Once Open has succeeded, all methods may be called concurrently; one Watch runs at a time.
// OnChange, OnFault, Mounted and TryEvents may be called without Open.
type Files struct {
	// Paths are the files. Open drops empty paths and repetitions.
	Paths []string
	// Apply parses and verifies c and takes it into use, or returns faults and changes
	// nothing. Calls never overlap. It adds to event what the log line about its success
	// should say.
	Apply func(c Contents, event *zerolog.Event) error
	// Tick, if not nil, is called by Watch before each reload, and never while Apply runs.
	Tick func()
	Log  zerolog.Logger
	// Clock returns the time for Stats. If it is nil, Open sets it to time.Now.
	Clock func() time.Time
	// NewWatcher makes the source of file events. If it is nil, fsnotify.NewWatcher does.
	// While it fails, Watch only polls, and tries it again at each poll.
	NewWatcher func() (*fsnotify.Watcher, error)

	// turn lets one reload run at a time. It is held while files are read: nothing
	// that must be quick takes it.
	turn    sync.Mutex
	current [32]byte // digest of what is in use
	failing bool
	failed  [32]byte // digest and text of the last failure, while failing
	fault   string

	mu       sync.Mutex
	stats    Stats         // guarded by mu
	onChange []func()      // guarded by mu; called after new content was taken into use
	onFault  []func(error) // guarded by mu; called when a fault is new, and with nil when it is over
}

// Open is the first load. Where a later reload would keep the last good content, Open returns
// the error of Apply: every fault, each a *Fault where it concerns a file.
func (f *Files) Open() error {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.Paths = distinct(f.Paths)
	if f.Clock == nil {
		f.Clock = time.Now
	}
	r := readFiles(f.Paths)
	event := f.Log.Info()
	if err := f.Apply(r.contents, event); err != nil {
		event.Discard()
		return err
	}
	event.Msg("certificates loaded")
	f.current = r.digest
	f.count(func(s *Stats) { *s = Stats{ReloadsFailed: map[string]uint64{}, LastOK: true, LastSuccess: f.Clock()} })
	for _, path := range f.Mounted() {
		f.Log.Warn().Str("file", path).Str("cure", "mount the directory instead of the file").
			Msg("file is itself a mount: replacing it outside will never be seen")
	}
	return nil
}

// distinct returns the paths in their order, without empty ones and repetitions.
func distinct(paths []string) []string {
	var all []string
	seen := map[string]bool{}
	for _, path := range paths {
		if path != "" && !seen[path] {
			seen[path] = true
			all = append(all, path)
		}
	}
	return all
}

func (f *Files) tickInTurn() {
	f.turn.Lock()
	defer f.turn.Unlock()
	if f.Tick != nil {
		f.Tick()
	}
}

// outcome is what one reload came to.
type outcome struct {
	changed bool
	turned  bool // a fault is new, or the last one is over
	err     error
}

// Reload reads all files now, and applies what they hold if it changed. It returns the error of
// Apply. A failure is logged and counted if it is new, or if the reload was forced.
func (f *Files) Reload(forced bool) (changed bool, err error) {
	o := f.reloadInTurn(forced)
	f.mu.Lock()
	onChange, onFault := f.onChange, f.onFault
	f.mu.Unlock()
	if o.changed {
		for _, hook := range onChange {
			hook()
		}
	}
	if o.turned {
		for _, hook := range onFault {
			hook(o.err)
		}
	}
	return o.changed, o.err
}

func (f *Files) reloadInTurn(forced bool) outcome {
	f.turn.Lock()
	defer f.turn.Unlock()
	r := readFiles(f.Paths)
	over := f.failing
	if r.digest == f.current {
		if f.failing {
			f.Log.Info().Msg("certificate files hold again what is in use")
		}
		f.succeeded(r, func(s *Stats) { s.ReloadsUnchanged++ })
		return outcome{turned: over}
	}
	event := f.Log.Info()
	if err := f.Apply(r.contents, event); err != nil {
		event.Discard()
		return outcome{turned: f.refused(r, err, forced), err: err}
	}
	event.Msg("certificates reloaded")
	f.succeeded(r, func(s *Stats) { s.ReloadsOK++ })
	return outcome{changed: true, turned: over}
}

func (f *Files) succeeded(r reading, count func(*Stats)) {
	f.current = r.digest
	f.failing = false
	f.count(func(s *Stats) {
		count(s)
		s.LastOK, s.LastSuccess = true, f.Clock()
	})
}

// refused remembers a fault and reports whether it is another one than before.
func (f *Files) refused(r reading, err error, forced bool) bool {
	known := f.failing && f.failed == r.digest && f.fault == causes(err)
	f.failing, f.failed, f.fault = true, r.digest, causes(err)
	if known && !forced {
		return false
	}
	f.count(func(s *Stats) {
		s.ReloadsFailed[reasonOf(err)]++
		s.LastOK = false
	})
	faultFields(f.Log.Warn(), err).Msg("reload refused, the last good certificates stay")
	return !known
}

// OnChange has hook called after each reload that took new content into use, by the goroutine
// that reloaded and outside all locks. Two calls may overlap or change places when Reload is
// called beside Watch.
func (f *Files) OnChange(hook func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onChange = append(f.onChange, hook)
}

// OnFault has hook called with the fault when a reload fails for a new reason, and with nil when
// a later one finds the files good again. It is called like the hooks of OnChange.
func (f *Files) OnFault(hook func(error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onFault = append(f.onFault, hook)
}

func (f *Files) count(change func(*Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.stats)
}

// Stats returns a copy.
func (f *Files) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.ReloadsFailed = maps.Clone(s.ReloadsFailed)
	return s
}
