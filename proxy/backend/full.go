package backend

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"dragontls/proxy/clock"
)

// fullInterval is the time between two lines of the log about maxclients.
const fullInterval = time.Minute

// fullness is what is known of connections that the backend has refused because its maxclients is reached. Safe for concurrent use.
type fullness struct {
	mu sync.Mutex
	// guarded by mu
	refused uint64        // so far
	untold  uint64        // of them, since the last line of the log
	last    clock.Instant // when the last one was refused
	nextLog clock.Instant // no line before
	answer  string        // of the backend
}

// noteFull takes over the outcome of a dial.
func (b *Backend) noteFull(err error) {
	var r *Refusal
	if !errors.Is(err, ErrMaxClients) || !errors.As(err, &r) {
		return
	}
	f := &b.full
	f.mu.Lock()
	f.refused++
	f.untold++
	f.last, f.answer = b.c.Now(), r.Answer
	f.mu.Unlock()
	b.tellFull()
}

// tellFull logs how many connections were refused since the last such line, at most once in fullInterval. The prober calls it too, so
// that no refusal is left untold.
func (b *Backend) tellFull() {
	f := &b.full
	now := b.c.Now()
	f.mu.Lock()
	n, answer := f.untold, f.answer
	tell := n > 0 && now >= f.nextLog
	if tell {
		f.untold, f.nextLog = 0, now.Add(fullInterval)
	}
	f.mu.Unlock()
	if tell {
		b.c.Log.Warn().Uint64("refused", n).Str("answer", answer).Msg("the backend refuses connections: its maxclients is reached")
	}
}

// fullDetail returns what Readiness says of a backend that has refused connections within probeFresh; empty: it has not.
func (b *Backend) fullDetail() string {
	f := &b.full
	now := b.c.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == 0 || now.Sub(f.last) >= probeFresh {
		return ""
	}
	return fmt.Sprintf("the backend refuses new connections, %d so far: %s", f.refused, f.answer)
}
