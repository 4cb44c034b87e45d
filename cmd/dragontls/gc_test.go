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
	}
	for name, test := range map[string]struct {
		limit int64 // MiB
		steps []step
	}{
		"idle from the start": {1024, []step{{0, 2, 50}, {0.5, 2, 50}, {0.5, 2, 50}}},
		"some allocation":     {1024, []step{{8, 2, 50}, {8, 2, 50}}},
		"a storm, then quiet": {1024, []step{
			{150, 2, 400}, {150, 3, 400},
			{0.5, 3, 400}, {0.5, 3, 50}, {0, 3, 50}, {0, 3, 50},
		}},
		"storms":                       {1024, []step{{9, 0, 400}, {0, 0, 400}, {0, 0, 50}, {9, 0, 400}, {0, 0, 400}, {0, 0, 50}}},
		"one quiet sample":             {1024, []step{{9, 2, 400}, {0, 2, 400}, {2, 2, 400}, {0, 2, 400}, {9, 2, 400}, {0, 2, 400}}},
		"between busy and quiet":       {1024, []step{{9, 2, 400}, {1, 2, 400}, {1, 2, 400}, {8, 2, 400}}},
		"live heap grows":              {1024, []step{{9, 8, 400}, {9, 16, 200}, {9, 32, 100}, {9, 4096, 50}}},
		"live heap shrinks":            {1024, []step{{9, 4096, 50}, {9, 32, 100}, {9, 4, 400}}},
		"changes of a quarter at most": {1024, []step{{9, 16, 200}, {9, 21, 200}, {9, 13, 200}, {9, 22, 145}}},
		"little memory":                {64, []step{{9, 2, 200}, {9, 8, 100}, {9, 64, 50}}},
		"very little memory":           {16, []step{{9, 0, 50}, {0, 0, 50}, {0, 0, 50}}},
		"no limit of memory":           {math.MaxInt64 >> 20, []step{{9, 16, 200}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := heapSample{at: time.Unix(0, 0), allocated: 1 << 40}
			p := newGCPacer(test.limit<<20, s)
			for i, want := range test.steps {
				s.at = s.at.Add(500 * time.Millisecond)
				s.allocated += uint64(want.rate * (1 << 20) / 2)
				s.live = want.live << 20
				if p.observe(s); p.percent != want.percent {
					t.Fatalf("step %d: got %d, want %d", i, p.percent, want.percent)
				}
			}
		})
	}
}

// Bursts with seconds between them do not pay for memory that the next one wants again.
func TestMemoryIsGivenBackOnceAllIsQuiet(t *testing.T) {
	s := heapSample{at: time.Unix(0, 0)}
	p := newGCPacer(1<<30, s)
	sample := func(rate uint64) bool {
		s.at = s.at.Add(time.Second)
		s.allocated += rate
		return p.observe(s)
	}
	for range 2 * freeSamples {
		if sample(0) {
			t.Fatal("without a burst")
		}
	}
	for burst := range 3 {
		sample(100 << 20)
		for i := range freeSamples - 1 {
			if sample(0) {
				t.Fatalf("burst %d: after %d quiet samples", burst, i+1)
			}
		}
	}
	if !sample(0) {
		t.Error("never")
	}
	for range 2 * freeSamples {
		if sample(0) {
			t.Fatal("twice")
		}
	}
}

func TestGCPercentRisesUnderAllocationAndFallsBack(t *testing.T) {
	keepGCPercent(t, 100)
	t.Setenv("GOGC", "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); paceGC(ctx, 5*time.Millisecond) }() // ends with cancel
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
	paceGC(ctx, time.Millisecond)
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
