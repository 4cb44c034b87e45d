package main

import (
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"dragontls/config"
)

// reloadResult is what came of reading the files again.
type reloadResult struct {
	Changed     bool            // a file of certificates, rules or keys has changed
	Err         error           // faults of these files; what was good before stays in use
	Settings    []config.Change // what the file of --env-file says otherwise than what is in use
	SettingsErr error           // its faults; nothing of it is in use then
}

// reload reads all files again, whether or not they seem to have changed. by says who asked for it. The store that reads a file of
// certificates logs its faults. Any goroutine may call it.
func (s *service) reload(by string) (r reloadResult) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	r.Changed, r.Err = s.store.Reload()
	if s.backend != nil {
		backendChanged, backendErr := s.backend.Reload()
		r.Changed, r.Err = r.Changed || backendChanged, errors.Join(r.Err, backendErr)
	}
	if s.from.envFile != "" {
		r.Settings, r.SettingsErr = s.reloadSettings()
		s.settingsReads.note(len(r.Settings) > 0, r.SettingsErr)
	}
	s.log.Info().Str("by", by).Bool("changed", r.Changed).Bool("ok", r.Err == nil && r.SettingsErr == nil).Msg("reload")
	return r
}

// current is what is in use: s.c with the variables that have changed since and take effect without a restart. The caller must not
// modify it.
func (s *service) current() *config.Config {
	if c := s.followed.Load(); c != nil {
		return c
	}
	return &s.c
}

// reloadSettings reads the file of --env-file again and follows it, unless it has a fault. The caller must hold s.reloading.
func (s *service) reloadSettings() ([]config.Change, error) {
	next, err := s.from.load()
	if err == nil {
		_, err = (&service{c: next}).login() // ALLOW
	}
	before := s.current()
	now, changes := before.Follow(next)
	if err == nil {
		err = s.server.Change(s.proxyConfig(&now))
	}
	if err != nil {
		for _, f := range faultFindings(err) {
			line := s.log.Error().Str("file", s.from.envFile).Str("subject", f.Subject).Str("finding", f.Message)
			if f.Cure != "" {
				line.Str("cure", f.Cure)
			}
			line.Msg("settings have a fault: none of them is followed")
		}
		return nil, err
	}
	s.followed.Store(&now)
	s.applySettings(before, &now)
	for _, c := range changes {
		if c.Live {
			s.log.Info().Str("variable", c.Variable).Msg("setting changed")
		} else {
			s.log.Warn().Str("variable", c.Variable).Msg("setting changed: it takes effect after a restart")
		}
	}
	s.logNotes(slices.DeleteFunc(slices.Clone(now.Notes), func(n config.Note) bool { return slices.Contains(before.Notes, n) }))
	return changes, nil
}

// applySettings makes follow what is not the proxy's.
func (s *service) applySettings(before, now *config.Config) {
	if level, err := zerolog.ParseLevel(now.LogLevel); err == nil && now.LogLevel != before.LogLevel { // an operator may have set another one
		s.out.setLevel(level)
	}
	if now.MemoryLimit != before.MemoryLimit {
		limitMemory(now)
	}
	if now.ExpiryWarning != before.ExpiryWarning {
		select {
		case <-s.expiryWarning: // nobody has taken the last one
		default:
		}
		s.expiryWarning <- now.ExpiryWarning // there is room: nobody else sends
	}
	if !slices.Equal(now.DenyCommands, before.DenyCommands) {
		for _, f := range judgeDenied(now) {
			s.logFinding(f)
		}
	}
}

// limitMemory tells the runtime what MEMORY_LIMIT is, unless somebody has told it otherwise.
func limitMemory(c *config.Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(c.MemoryLimit))
	}
}

// settingsReads counts what came of reading the file of --env-file. Safe for concurrent use.
type settingsReads struct {
	mu sync.Mutex
	// guarded by mu
	ok, unchanged, failed uint64
	last                  error
	lastGood, badSince    time.Time
}

func (r *settingsReads) note(changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch {
	case err != nil:
		if r.last == nil {
			r.badSince = now
		}
		r.failed++
	case changed:
		r.ok++
	default:
		r.unchanged++
	}
	r.last = err
	if err == nil {
		r.lastGood = now
	}
}

// collectSettings counts the reads of the file of --env-file among those of the other files.
func (s *service) collectSettings(m metrics) {
	if s.from.envFile == "" {
		return
	}
	r := &s.settingsReads
	r.mu.Lock()
	defer r.mu.Unlock()
	of := label("of", "settings")
	m.counter("reload_total", reloadHelp, r.ok, of, label("result", "ok"), label("reason", ""))
	m.counter("reload_total", reloadHelp, r.unchanged, of, label("result", "unchanged"), label("reason", ""))
	m.counter("reload_total", reloadHelp, r.failed, of, label("result", "failed"), label("reason", "settings"))
	m.gauge("last_reload_success_timestamp_seconds", lastReloadHelp, seconds(r.lastGood), of)
	m.gauge("last_reload_successful", lastReloadOKHelp, truth(r.last == nil), of)
	if r.last != nil {
		m.gauge("reload_held_since_seconds", heldHelp, seconds(r.badSince), of, label("source", "settings"), label("file", s.from.envFile), label("reason", "settings"))
	}
}

// heldSettings says on one line that the file of --env-file is not followed; empty: it is.
func (s *service) heldSettings() string {
	r := &s.settingsReads
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return ""
	}
	return oneLine("held back since " + r.badSince.UTC().Format(time.RFC3339) + ": settings of " + s.from.envFile + ": " + r.last.Error())
}
