package backend

import (
	"maps"
	"sync"
	"sync/atomic"
)

// counters are what Stats are read from.
type counters struct {
	connections atomic.Int64
	dials       atomic.Uint64

	counting sync.Mutex
	// guarded by counting
	errors     map[string]uint64 // by reason
	recoveries map[string]uint64 // by reason
}

// Stats is a snapshot of what a backend counts.
type Stats struct {
	Up          bool // it answers the prober
	Connections int  // open, the prober's aside
	Dials       uint64
	Errors      map[string]uint64 // by reason
	Recoveries  map[string]uint64 // by reason, see Recovered
}

// Stats returns what was counted so far.
func (b *Backend) Stats() Stats {
	b.counting.Lock()
	defer b.counting.Unlock()
	return Stats{Up: b.up.Load(), Connections: int(b.connections.Load()), Dials: b.dials.Load(), Errors: maps.Clone(b.errors), Recoveries: maps.Clone(b.recoveries)}
}

// Count counts an error of the backend under a reason, of which there are few: it is a metric's label.
func (b *Backend) Count(reason string) {
	b.counting.Lock()
	defer b.counting.Unlock()
	b.errors[reason]++
}

// Recovered counts by reason how often connections were given up because new ones are served better: moved and readonly (see
// Config.Moved), silent and held (see package lane; the witness of a Life may be silent too).
func (b *Backend) Recovered(reason string) {
	b.counting.Lock()
	defer b.counting.Unlock()
	b.recoveries[reason]++
}
