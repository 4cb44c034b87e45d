package proxy

import (
	"maps"
	"sync"
	"sync/atomic"
)

// backendCounters are what backendStats are read from.
type backendCounters struct {
	connections atomic.Int64
	dials       atomic.Uint64

	counting sync.Mutex
	errors   map[string]uint64 // by reason; guarded by counting
}

// backendStats is a snapshot of what a backend counts.
type backendStats struct {
	Up          bool // it answers the prober
	Connections int  // open, the prober's aside
	Dials       uint64
	Errors      map[string]uint64 // by reason
}

// stats may be called at any time.
func (b *backend) stats() backendStats {
	b.counting.Lock()
	defer b.counting.Unlock()
	return backendStats{Up: b.up.Load(), Connections: int(b.connections.Load()), Dials: b.dials.Load(), Errors: maps.Clone(b.errors)}
}

// count counts an error of the backend under a reason, of which there are few: it is a metric's label.
func (b *backend) count(reason string) {
	b.counting.Lock()
	defer b.counting.Unlock()
	b.errors[reason]++
}
