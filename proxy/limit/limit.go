// Package limit counts how often the limits of the proxy are reached and keeps the log short: a limit that is reached says so at
// once, and then every Interval at most how often since; lines of one kind are written MaxLines a second, MaxLinesOfOne for each
// client, and then counted.
package limit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
)

// Interval is the least time between two log lines about one limit.
const Interval = 10 * time.Second

// Options of a Limit. Message, Log and Now are required.
type Options struct {
	Name    string // as an operator knows it: "MAX_CONNECTIONS"
	Value   int64  // to begin with, see SetValue; 0: there is none, or it is not known
	Message string // what the log says: that the limit is reached, and what follows from it
	Log     zerolog.Logger
	Now     func() clock.Instant
}

// Limit counts how often one limit was reached. A nil *Limit counts nothing. Safe for concurrent use.
type Limit struct {
	o       Options
	value   atomic.Int64
	reached atomic.Uint64
	next    clock.Atomic // no line is due before this time

	mu   sync.Mutex
	told uint64 // what reached was at the last line; guarded by mu
}

// New returns a Limit that was never reached.
func New(o Options) *Limit {
	l := &Limit{o: o}
	l.value.Store(o.Value)
	return l
}

// Name returns Options.Name.
func (l *Limit) Name() string { return l.o.Name }

// Value returns how much there may be; 0: there is no limit, or it is not known.
func (l *Limit) Value() int64 { return l.value.Load() }

// SetValue sets what Value returns from now on.
func (l *Limit) SetValue(n int64) { l.value.Store(n) }

// Count returns how often the limit was reached.
func (l *Limit) Count() uint64 { return l.reached.Load() }

// Reached counts that the limit was reached, and logs it if a line is due. detail, which may be nil, adds to that line what is
// known of the one that met the limit. Between two lines it costs an atomic addition and a look at the clock. The caller holds
// no lock.
func (l *Limit) Reached(detail func(*zerolog.Event)) {
	if l == nil {
		return
	}
	l.reached.Add(1)
	l.tell(detail)
}

// Tell logs how often the limit was reached since the last line, if it was and a line is due. It is called now and then, so
// that no time is left untold.
func (l *Limit) Tell() {
	if l != nil {
		l.tell(nil)
	}
}

func (l *Limit) tell(detail func(*zerolog.Event)) {
	now := l.o.Now()
	if now < l.next.Load() {
		return
	}
	l.mu.Lock()
	since := l.reached.Load() - l.told
	due := since > 0 && now >= l.next.Load()
	if due {
		l.told += since
		l.next.Store(now.Add(Interval))
	}
	l.mu.Unlock()
	if !due {
		return
	}
	e := l.o.Log.Warn().Str("limit", l.o.Name).Uint64("count", since)
	if value := l.Value(); value > 0 {
		e.Int64("value", value)
	}
	if detail != nil && e.Enabled() {
		detail(e)
	}
	e.Msg(l.o.Message)
}
