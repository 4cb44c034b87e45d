package backend

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"dragontls/proxy/clock"
)

// tellPortsInterval is the minimum time between two log lines about missing ports.
const tellPortsInterval = 10 * time.Second

// missingPorts counts the dials for which this side had no port left, and remembers when that was last logged. Safe for concurrent
// use.
type missingPorts struct {
	mu sync.Mutex
	// guarded by mu
	since uint64        // dials since the last line
	next  clock.Instant // no line is due before this time
}

// isOutOfPorts reports whether a dial failed because all local ports from which the backend's address can be dialled are in use, most
// of them in TIME_WAIT.
func isOutOfPorts(err error) bool { return errors.Is(err, syscall.EADDRNOTAVAIL) }

// tellPorts logs that dials found no port, with what an operator can do: the first time at once, then at most every
// tellPortsInterval. err is what became of a dial.
func (b *Backend) tellPorts(err error) {
	if !isOutOfPorts(err) {
		return
	}
	p := &b.ports
	p.mu.Lock()
	p.since++
	n, now := p.since, b.c.Now()
	due := now >= p.next
	if due {
		p.since, p.next = 0, now.Add(tellPortsInterval)
	}
	p.mu.Unlock()
	if due {
		f := Explain(err)
		b.about(b.c.Log.Error()).Str("reason", f.Reason).Uint64("dials", n).Str("error", Printable(err.Error())).Str("cure", f.Cure).Msg(f.Line)
	}
}
