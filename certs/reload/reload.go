// Package reload reads a set of files, reads them again when they change, and has their owner
// take into use what they hold. What the owner refuses is held back, source by source, and what was
// in use stays. This package knows files, times and faults; only the owner knows what the files mean.
package reload

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"
)

// Stats counts what became of reloads.
type Stats struct {
	ReloadsOK        uint64            // new content taken into use, though some sources may have been held back
	ReloadsUnchanged uint64            // the files held what is in use already
	ReloadsFailed    map[string]uint64 // sources held back, by the reason of the first fault; a fault that stays is counted once
	LastSuccess      time.Time         // when the files last held what is in use, and nothing else
	LastOK           bool              // the last reload held no source back
	WatchMode        string            // ModeEvents, ModePoll, or empty while nothing watches
}

// Files are read together, and each Source of them is taken into use apart. Set the exported fields, then call Open.
// Once Open has succeeded, all methods may be called concurrently; one Watch runs at a time.
// OnChange, OnFault, Mounted and TryEvents may be called without Open.
type Files struct {
	// Paths are the files. Open drops empty paths and repetitions.
	Paths []string
	// Apply parses and verifies c and takes into use what is good of it. If it is called by Open
	// and returns sources that are held back, it has taken nothing into use. Calls never overlap.
	Apply func(c Contents) Outcome
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
	current [32]byte // digest of the files while they hold what is in use and nothing else; else zero

	mu       sync.Mutex
	held     map[*Source]holding // guarded by mu; written in turn only
	stats    Stats               // guarded by mu
	onChange []func()            // guarded by mu; called after new content was taken into use
	onFault  []func(error)       // guarded by mu; called when faults are new, and with nil when all are over
}

// Open is the first load. Where a later reload would hold a source back, Open returns every
// fault, each a *Fault where it concerns a file.
func (f *Files) Open() error {
	f.turn.Lock()
	defer f.turn.Unlock()
	f.Paths = distinct(f.Paths)
	if f.Clock == nil {
		f.Clock = time.Now
	}
	r := readFiles(f.Paths)
	o := f.Apply(r.contents)
	if err := o.Err(); err != nil {
		return err
	}
	if len(o.Changes) > 0 {
		f.describe(o.Changes[0]).Msg("certificates loaded")
	}
	f.current = r.digest
	f.count(func(s *Stats) { *s = Stats{ReloadsFailed: map[string]uint64{}, LastOK: true, LastSuccess: f.Clock()} })
	for _, path := range f.Mounted() {
		f.Log.Warn().Str("file", path).Str("cure", "mount the directory instead of the file").
			Msg("file is itself a mount: a replacement outside is never seen here")
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

// result is what one reload came to.
type result struct {
	changed bool
	news    []error // faults that are new
	over    bool    // the last fault is over
	err     error   // all faults
}

// Reload reads all files now, and applies what they hold if it changed. Sources with faults are held back, and the others
// are taken into use all the same. It returns every fault. A source that is held back is logged and counted if its fault
// is new, or if the reload was forced, and logged again every hour.
func (f *Files) Reload(forced bool) (changed bool, err error) {
	r := f.reloadInTurn(forced)
	f.mu.Lock()
	onChange, onFault := f.onChange, f.onFault
	f.mu.Unlock()
	if r.changed {
		for _, hook := range onChange {
			hook()
		}
	}
	if len(r.news) > 0 || r.over {
		for _, hook := range onFault {
			hook(errors.Join(r.news...))
		}
	}
	return r.changed, r.err
}

func (f *Files) reloadInTurn(forced bool) result {
	f.turn.Lock()
	defer f.turn.Unlock()
	r := readFiles(f.Paths)
	if r.digest == f.current {
		f.succeeded(func(s *Stats) { s.ReloadsUnchanged++ })
		return result{}
	}
	o := f.Apply(r.contents)
	for _, c := range o.Changes {
		f.describe(c).Msg(c.Reloaded)
	}
	out := result{changed: len(o.Changes) > 0, err: o.Err()}
	out.news, out.over = f.hold(o, r.contents, forced)
	f.current = r.digest
	if out.changed {
		f.count(func(s *Stats) { s.ReloadsOK++ })
	}
	if out.err != nil {
		f.current = [32]byte{}
		f.count(func(s *Stats) { s.LastOK = false })
		return out
	}
	f.succeeded(func(s *Stats) {
		if !out.changed {
			s.ReloadsUnchanged++
		}
	})
	return out
}

func (f *Files) describe(c Change) *zerolog.Event {
	event := f.Log.Info().Str("source", c.Name)
	c.Describe(event)
	return event
}

func (f *Files) succeeded(count func(*Stats)) {
	f.count(func(s *Stats) {
		count(s)
		s.LastOK, s.LastSuccess = true, f.Clock()
	})
}

// OnChange has hook called after each reload that took new content into use, by the goroutine
// that reloaded and outside all locks. Two calls may overlap or change places when Reload is
// called beside Watch.
func (f *Files) OnChange(hook func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onChange = append(f.onChange, hook)
}

// OnFault has hook called with the faults that are new when a reload holds a source back for a new
// reason, and with nil when a later one finds all files good again. It is called like the hooks of OnChange.
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
