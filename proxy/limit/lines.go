package limit

import (
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/clock"
)

const (
	// MaxLines of one kind are written in a second.
	MaxLines = 20
	// MaxLinesOfOne of these are about one client, so that it cannot hide what others do.
	MaxLinesOfOne = 5
)

// Lines lets MaxLines log lines of one kind pass in a second, and of these MaxLinesOfOne for each client K, and counts the
// others. The zero value works. Safe for concurrent use.
type Lines[K comparable] struct {
	silentUntil clock.Atomic  // until then no line passes
	more        atomic.Uint64 // lines that did not pass, since TakeMore
	nextTake    clock.Instant // TakeMore returns 0 before; its caller's

	mu sync.Mutex
	// guarded by mu
	started bool
	begun   clock.Instant // when the second began in which lines are counted
	written int           // lines that passed in it
	of      [MaxLines]K   // about which clients they were: the first written ones count
}

// Pass reports whether the caller may write a line about a client now, by a monotonic clock. If it returns false, the line is
// counted.
func (l *Lines[K]) Pass(now clock.Instant, client K) bool {
	if now < l.silentUntil.Load() || !l.passes(now, client) {
		l.more.Add(1)
		return false
	}
	return true
}

func (l *Lines[K]) passes(now clock.Instant, client K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started || now >= l.begun.Add(time.Second) {
		l.started, l.begun, l.written = true, now, 0
	}
	if l.written == MaxLines {
		l.silentUntil.Store(l.begun.Add(time.Second))
		return false
	}
	before := 0
	for _, k := range l.of[:l.written] {
		if k == client {
			before++
		}
	}
	if before >= MaxLinesOfOne {
		return false
	}
	l.of[l.written] = client
	l.written++
	return true
}

// TakeMore returns how many lines did not pass since it last returned a number, or 0 if it did so less than a second ago. After
// any other result the caller must log that number. Only one goroutine calls it.
func (l *Lines[K]) TakeMore(now clock.Instant) uint64 {
	if l.more.Load() == 0 || now < l.nextTake {
		return 0
	}
	l.nextTake = now.Add(time.Second)
	return l.more.Swap(0)
}
