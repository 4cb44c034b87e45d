package backend

import (
	"errors"
	"fmt"
	"sync"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// fullness is what is known of connections that the backend has refused because its maxclients is reached. Safe for concurrent use.
type fullness struct {
	mu sync.Mutex
	// guarded by mu
	refused uint64        // so far
	last    clock.Instant // when the last one was refused
	answer  string        // of the backend
}

// noteLimits tells the limits that a failed dial has reached.
func (b *Backend) noteLimits(err error) {
	if netio.IsOutOfDescriptors(err) {
		b.c.Limits.Descriptors.Reached(func(e *zerolog.Event) { e.Err(err) })
	}
	var r *Refusal
	if !errors.Is(err, ErrMaxClients) || !errors.As(err, &r) {
		return
	}
	f := &b.full
	f.mu.Lock()
	f.refused++
	f.last, f.answer = b.c.Now(), r.Answer
	f.mu.Unlock()
	b.c.Limits.Clients.Reached(func(e *zerolog.Event) {
		b.about(e).Str("answer", Printable(r.Answer)).Str("cure", Explain(ErrMaxClients).Cure)
	})
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
	return fmt.Sprintf("the backend refuses new connections, %d so far: %s", f.refused, Printable(f.answer))
}
