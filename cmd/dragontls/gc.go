package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// Commands allocate nothing, a handshake some 60 KB. While the heap is small, a low GC percent makes many handshakes
// pay for many collections; while all is quiet, a high one makes each idle connection cost more.
const (
	idlePercent = 50  // half the runtime's own: saves 5 KiB of each idle connection
	maxPercent  = 400 // a small heap gets 16 MiB: the runtime takes it for 4 MiB

	busyHeadroom = 32 << 20
	minHeap      = 4 << 20 // heapMinimum of the runtime, at 100 percent

	busyRate     = 8 << 20 // bytes a second
	quietRate    = 1 << 20
	quietSamples = 2  // before the GC percent falls
	freeSamples  = 40 // before memory is given back to the system, which costs a burst of handshakes more than a tenth of itself

	paceInterval = 250 * time.Millisecond
)

// paceGC moves the GC percent with the rate of allocation, which it looks at after each interval, until ctx ends. Where GOGC
// is set it touches nothing.
func paceGC(ctx context.Context, interval time.Duration) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(idlePercent)
	var heap heapReader
	p := newGCPacer(debug.SetMemoryLimit(-1), heap.read())
	wait := time.NewTimer(interval) // no ticker: after a long collection its next tick comes too soon to judge a rate
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		before := p.percent
		p.limitTo(debug.SetMemoryLimit(-1)) // it may have changed
		free := p.observe(heap.read())
		if p.percent != before {
			debug.SetGCPercent(p.percent)
		}
		if free {
			debug.FreeOSMemory()
		}
		wait.Reset(interval)
	}
}

// heapSample is what the runtime knows of the heap at one time, in bytes.
type heapSample struct {
	at        time.Time
	allocated uint64 // since the start
	live      uint64 // after the last collection; stacks and globals too, for the GC percent is of all three
}

// heapReader reads samples. It belongs to one goroutine.
type heapReader [4]runtimemetrics.Sample

func (r *heapReader) read() heapSample {
	for i, name := range [...]string{"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes"} {
		r[i].Name = name
	}
	runtimemetrics.Read(r[:])
	return heapSample{
		at:        time.Now(),
		allocated: r[0].Value.Uint64(),
		live:      r[1].Value.Uint64() + r[2].Value.Uint64() + r[3].Value.Uint64(),
	}
}

// gcPacer decides, from one sample after another. It belongs to one goroutine.
type gcPacer struct {
	percent  int
	headroom uint64 // bytes of garbage before a collection, while busy
	busy     bool
	grown    bool // since memory was last given back
	quiet    int  // samples in a row
	last     heapSample
}

func newGCPacer(memoryLimit int64, first heapSample) *gcPacer {
	p := &gcPacer{percent: idlePercent, last: first}
	p.limitTo(memoryLimit)
	return p
}

// limitTo gives garbage an eighth of the memory limit at most.
func (p *gcPacer) limitTo(memoryLimit int64) { p.headroom = min(busyHeadroom, uint64(memoryLimit)/8) }

// observe updates the percent. With free, it also gives memory back to the system.
func (p *gcPacer) observe(s heapSample) (free bool) {
	rate := float64(s.allocated-p.last.allocated) / s.at.Sub(p.last.at).Seconds()
	p.last = s
	switch {
	case rate > busyRate:
		p.busy, p.grown, p.quiet = true, true, 0
		if want := p.wanted(s.live); math.Abs(float64(want-p.percent)) > float64(p.percent)/4 {
			p.percent = want
		}
	case rate < quietRate && p.grown:
		if p.quiet++; p.quiet >= quietSamples && p.busy {
			p.busy, p.percent = false, idlePercent
		}
		if p.quiet >= freeSamples {
			p.grown = false
			return true
		}
	default:
		p.quiet = 0
	}
	return false
}

func (p *gcPacer) wanted(live uint64) int {
	percent := p.headroom * 100 / max(live, minHeap)
	return int(min(max(percent, idlePercent), maxPercent))
}
