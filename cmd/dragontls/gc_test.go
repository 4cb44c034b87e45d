package main

import (
	"context"
	"math"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"testing"
	"time"
)

func TestGCPercentFollowsTheRateOfAllocation(t *testing.T) {
	type step struct {
		rate    float64 // MiB a second, since the step before
		live    uint64  // MiB
		percent int
		free    bool
	}
	for name, test := range map[string]struct {
		limit int64 // MiB
		steps []step
	}{
		"idle from the start": {1024, []step{{0, 2, 50, false}, {0.5, 2, 50, false}, {0.5, 2, 50, false}}},
		"some allocation":     {1024, []step{{8, 2, 50, false}, {8, 2, 50, false}}},
		"a storm, then quiet": {1024, []step{
			{150, 2, 400, false}, {150, 3, 400, false},
			{0.5, 3, 400, false}, {0.5, 3, 50, true}, {0, 3, 50, false}, {0, 3, 50, false},
		}},
		"storms":                       {1024, []step{{9, 0, 400, false}, {0, 0, 400, false}, {0, 0, 50, true}, {9, 0, 400, false}, {0, 0, 400, false}, {0, 0, 50, true}}},
		"one quiet sample":             {1024, []step{{9, 2, 400, false}, {0, 2, 400, false}, {2, 2, 400, false}, {0, 2, 400, false}, {9, 2, 400, false}, {0, 2, 400, false}}},
		"between busy and quiet":       {1024, []step{{9, 2, 400, false}, {1, 2, 400, false}, {1, 2, 400, false}, {8, 2, 400, false}}},
		"live heap grows":              {1024, []step{{9, 8, 400, false}, {9, 16, 200, false}, {9, 32, 100, false}, {9, 4096, 50, false}}},
		"live heap shrinks":            {1024, []step{{9, 4096, 50, false}, {9, 32, 100, false}, {9, 4, 400, false}}},
		"changes of a quarter at most": {1024, []step{{9, 16, 200, false}, {9, 21, 200, false}, {9, 13, 200, false}, {9, 22, 145, false}}},
		"little memory":                {64, []step{{9, 2, 200, false}, {9, 8, 100, false}, {9, 64, 50, false}}},
		"very little memory":           {16, []step{{9, 0, 50, false}, {0, 0, 50, false}, {0, 0, 50, true}}},
		"no limit of memory":           {math.MaxInt64 >> 20, []step{{9, 16, 200, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := heapSample{at: time.Unix(0, 0), allocated: 1 << 40}
			p := newGCPacer(test.limit<<20, s)
			for i, want := range test.steps {
				s.at = s.at.Add(500 * time.Millisecond)
				s.allocated += uint64(want.rate * (1 << 20) / 2)
				s.live = want.live << 20
				free := p.observe(s)
				if p.percent != want.percent || free != want.free {
					t.Fatalf("step %d: got %d, %v, want %d, %v", i, p.percent, free, want.percent, want.free)
				}
			}
		})
	}
}

func TestGCPercentRisesUnderAllocationAndFallsBack(t *testing.T) {
	keepGCPercent(t, 100)
	t.Setenv("GOGC", "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); paceGC(ctx) }() // ends with cancel
	defer func() { cancel(); <-ended }()

	collections := readMetric("/gc/cycles/forced:gc-cycles")
	var garbage []byte
	pollGC(t, "a higher GC percent", func() bool {
		for range 100 {
			garbage = make([]byte, 128<<10) // too big for the stack
		}
		return readMetric("/gc/gogc:percent") > 100
	})
	_ = garbage
	pollGC(t, "the GC percent of an idle proxy", func() bool { return readMetric("/gc/gogc:percent") == idlePercent })
	pollGC(t, "memory given back", func() bool { return readMetric("/gc/cycles/forced:gc-cycles") > collections })
}

func TestGCPercentOfTheUserStays(t *testing.T) {
	keepGCPercent(t, 77)
	t.Setenv("GOGC", "77")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	paceGC(ctx)
	if got := readMetric("/gc/gogc:percent"); got != 77 {
		t.Errorf("got %d, want 77", got)
	}
}

func BenchmarkGCPace(b *testing.B) {
	var heap heapReader
	p := newGCPacer(1<<30, heap.read())
	b.ReportAllocs()
	for b.Loop() {
		p.observe(heap.read())
	}
}

// keepGCPercent sets it for one test, which must not be parallel: it is of the process.
func keepGCPercent(t *testing.T, percent int) {
	former := debug.SetGCPercent(percent)
	t.Cleanup(func() { debug.SetGCPercent(former) })
}

func readMetric(name string) uint64 {
	s := []runtimemetrics.Sample{{Name: name}}
	runtimemetrics.Read(s)
	return s[0].Value.Uint64()
}

func pollGC(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("no %s within a minute", what)
		}
	}
}
