// Package clock has the readings of a monotonic clock as a type of their own, so that an instant is never taken for a
// duration, nor the other way round.
package clock

import (
	"sync/atomic"
	"time"
)

// Instant is a reading of a monotonic clock: nanoseconds since that clock was started. Readings of different clocks must not
// be compared.
type Instant int64

// Add returns the instant that is d after i, or before it if d is negative.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i. It is negative if i comes first.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Start starts a clock and returns the function that reads it. It is safe for concurrent use.
func Start() (now func() Instant) {
	started := time.Now()
	return func() Instant { return Instant(time.Since(started)) }
}

// Atomic is an Instant that several goroutines may load and store. The zero value holds the start of the clock.
type Atomic struct{ at atomic.Int64 }

// Load returns the instant that was stored last.
func (a *Atomic) Load() Instant { return Instant(a.at.Load()) }

// Store stores an instant.
func (a *Atomic) Store(i Instant) { a.at.Store(int64(i)) }

// Swap stores an instant and returns the one that was stored before.
func (a *Atomic) Swap(i Instant) (last Instant) { return Instant(a.at.Swap(int64(i))) }

// CompareAndSwap stores i if last is stored, and reports whether it was.
func (a *Atomic) CompareAndSwap(last, i Instant) bool {
	return a.at.CompareAndSwap(int64(last), int64(i))
}
