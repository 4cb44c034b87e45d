package certs

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
	ReloadsUnchanged uint64            // read, and what is in use already
	ReloadsFailed    map[string]uint64 // by the reason of the first fault; a fault that stays counts once
	LastSuccess      time.Time         // when the files last held what is in use
	LastOK           bool              // whether the last attempt was one
	WatchMode        string            // "events+poll", "poll", or empty while nothing watches
}

// reloader reads files, has them applied when they changed and are good, and
// remembers what became of it. Store and Client each own one.
type reloader struct {
	paths []string
	log   zerolog.Logger
	// apply parses, verifies and swaps, or returns faults and changes nothing.
	// One goroutine at a time calls it. The event gets what the log shall say.
	apply func(contents, *zerolog.Event) error
	// tick, if not nil, is called by watch before each reload, and never beside apply.
	tick       func()
	clock      func() time.Time
	newWatcher func() (*fsnotify.Watcher, error)

	// turn lets one reload run at a time. It is held across reading files, but
	// no handshake and no reader of statistics ever takes it.
	turn    sync.Mutex
	current [32]byte // digest of what is in use
	failing bool
	failed  [32]byte // digest and text of the last failure, while failing
	fault   string

	mu       sync.Mutex
	stats    Stats         // guarded by mu
	onChange []func()      // guarded by mu; called after a swap
	onFault  []func(error) // guarded by mu; called when a fault is new, and with nil when it is over
}

func newReloader(log zerolog.Logger, clock func() time.Time, paths []string) *reloader {
	r := &reloader{log: log, clock: clock, newWatcher: fsnotify.NewWatcher}
	seen := map[string]bool{}
	for _, path := range paths {
		if path != "" && !seen[path] {
			seen[path] = true
			r.paths = append(r.paths, path)
		}
	}
	r.stats.ReloadsFailed = map[string]uint64{}
	return r
}

// open is the first load: it fails where a reload would keep the last good content.
func (r *reloader) open() error {
	r.turn.Lock()
	defer r.turn.Unlock()
	c := readFiles(r.paths)
	event := r.log.Info()
	if err := r.apply(c.contents, event); err != nil {
		event.Discard()
		return err
	}
	event.Msg("certificates loaded")
	r.current = c.digest
	r.count(func(s *Stats) { s.LastOK, s.LastSuccess = true, r.clock() })
	for _, path := range mountedPaths(r.paths) {
		r.log.Warn().Str("file", path).Str("cure", "mount the directory instead of the file").
			Msg("file is itself a mount: replacing it outside will never be seen")
	}
	return nil
}

func (r *reloader) tickInTurn() {
	r.turn.Lock()
	defer r.turn.Unlock()
	if r.tick != nil {
		r.tick()
	}
}

// outcome is what one reload came to.
type outcome struct {
	changed bool
	turned  bool // a fault is new, or over
	err     error
}

// reload reads everything and applies it when it changed. A failure is logged
// and counted when it is new, or when the reload was forced.
func (r *reloader) reload(forced bool) (changed bool, err error) {
	o := r.reloadInTurn(forced)
	r.mu.Lock()
	onChange, onFault := r.onChange, r.onFault
	r.mu.Unlock()
	if o.changed {
		for _, f := range onChange {
			f()
		}
	}
	if o.turned {
		for _, f := range onFault {
			f(o.err)
		}
	}
	return o.changed, o.err
}

func (r *reloader) reloadInTurn(forced bool) outcome {
	r.turn.Lock()
	defer r.turn.Unlock()
	c := readFiles(r.paths)
	over := r.failing
	if c.digest == r.current {
		if r.failing {
			r.log.Info().Msg("certificate files hold again what is in use")
		}
		r.succeeded(c, func(s *Stats) { s.ReloadsUnchanged++ })
		return outcome{turned: over}
	}
	event := r.log.Info()
	if err := r.apply(c.contents, event); err != nil {
		event.Discard()
		return outcome{turned: r.refused(c, err, forced), err: err}
	}
	event.Msg("certificates reloaded")
	r.succeeded(c, func(s *Stats) { s.ReloadsOK++ })
	return outcome{changed: true, turned: over}
}

func (r *reloader) succeeded(c reading, count func(*Stats)) {
	r.current = c.digest
	r.failing = false
	r.count(func(s *Stats) {
		count(s)
		s.LastOK, s.LastSuccess = true, r.clock()
	})
}

// refused remembers a fault and tells whether it is another one than before.
func (r *reloader) refused(c reading, err error, forced bool) bool {
	known := r.failing && r.failed == c.digest && r.fault == causes(err)
	r.failing, r.failed, r.fault = true, c.digest, causes(err)
	if known && !forced {
		return false
	}
	r.count(func(s *Stats) {
		s.ReloadsFailed[reasonOf(err)]++
		s.LastOK = false
	})
	faultFields(r.log.Warn(), err).Msg("reload refused, the last good certificates stay")
	return !known
}

func (r *reloader) hookChange(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onChange = append(r.onChange, f)
}

func (r *reloader) hookFault(f func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onFault = append(r.onFault, f)
}

func (r *reloader) count(f func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.stats)
}

func (r *reloader) snapshotStats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.ReloadsFailed = maps.Clone(s.ReloadsFailed)
	return s
}
