//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Many reloads under load: no client fails and nothing is left behind. The full run also bounds the heap, and compares the
// load with that of phases without reloads (0.95 of it is the aim), which means something on a quiet machine only:
//
//	E2E_RELOADS=1000 go test -run TestReloadsUnderLoad -timeout 30m -v ./cmd/dragontls
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	n := numberFrom(t, "E2E_RELOADS", 40)
	full := os.Getenv("E2E_RELOADS") != ""
	ca, dir := newCA(t, "reloads"), t.TempDir()
	kind := rotations[slices.IndexFunc(rotations, func(r rotation) bool { return r.name == "..data" })] // never a pair that does not match
	current := issue(t, ca)
	kind.first(t, dir, current)
	p := ownCA(t, ca, redisServer(t).url(), "TLS_CERT_FILE="+kind.cert(dir), "TLS_KEY_FILE="+kind.key(dir), "LOG_LEVEL=info", longDrain).wantReady()
	before := p.holds()
	asked := load{pace: 4 * time.Millisecond, benchmark: []string{"-t", "get", "-d", "64", "-c", "50", "-n", "1000000"}}
	gets := func() float64 { return p.metrics().sum("commands_total", "command", "GET") }
	begin := func() *clients {
		t.Helper()
		c, asked := crowd(t, p, current.serial, asked), gets()
		eventually(t, "clients of every kind get through", func() bool { return gets() > asked+20000 && c.full.Load() > 20 && c.resumed.Load() > 20 })
		return c
	}
	begin().stop(t, 0, 0) // brings memory to its working level
	heapBefore := p.liveHeap()
	c := begin()

	reloads, worst := 0, time.Duration(0)
	reload := func() {
		reloads++
		next := issue(t, ca)
		c.allow(next.serial)
		kind.rotate(t, dir, reloads, next, nil)
		begun := time.Now()
		eventually(t, "new clients see the new certificate", func() bool { return c.served.Load() == next.serial })
		worst = max(worst, time.Since(begun))
		c.only(next.serial)
		current = next
	}
	if full {
		p.compare(t, n, &reloads, reload)
	}
	asking := gets()
	for reloads < n {
		reload()
	}
	if !full && gets() == asking {
		t.Error("reloads without a load")
	}
	c.stop(t, n, worst)

	heapAfter, after := p.liveHeap(), p.holds()
	eventually(t, fmt.Sprintf("what %v held becomes no more than %v", after, before), func() bool {
		after = p.holds()
		return after.within(before)
	})
	t.Logf("live heap %d KiB, then %d KiB; before %v, after %v", heapBefore>>10, heapAfter>>10, before, after)
	// What one reload reads and parses takes more than leftPerReload, which shows among what handshakes leave in caches only
	// after many; TestReloadsLeaveNothingOfWhatTheyReplaced asks for each thing that a reload replaces.
	const leftPerReload, caches = 4 << 10, 2 << 20
	if bound := heapBefore + n*leftPerReload + caches; full && heapAfter > bound {
		t.Errorf("the live heap grew from %d to %d KiB over %d reloads, want %d KiB at most", heapBefore>>10, heapAfter>>10, n, bound>>10)
	}
	m := p.metrics()
	if ok, failed := m.sum("reload_total", "result", "ok"), m.sum("reload_total", "result", "failed"); ok != float64(n) || failed != 0 {
		t.Errorf("got %v reloads and %v that failed, want %d and none", ok, failed, n)
	}
	p.wantEnd()
}

// compare measures a phase with reloads and one of the same length without, in turns, so that whatever else the machine does
// falls on both.
func (p *instance) compare(t *testing.T, n int, reloads *int, reload func()) {
	t.Helper()
	rounds := min(25, max(1, n/10))
	var with, without, ratios []float64
	length := 2 * time.Second
	quiet := func() { without = append(without, p.throughput(func() { <-time.After(length) })) }
	for round := range rounds {
		if round%2 == 1 {
			quiet()
		}
		begun := time.Now()
		with = append(with, p.throughput(func() {
			for *reloads < n*(round+1)/rounds {
				reload()
			}
		}))
		length = time.Since(begun)
		if round%2 == 0 {
			quiet()
		}
		ratios = append(ratios, with[round]/without[round])
	}
	t.Logf("GET/s with reloads %.0f, without %.0f; ratio %.3f, of each round %.3f", median(with), median(without), median(ratios), ratios)
	if slices.Min(slices.Concat(with, without)) == 0 {
		t.Error("a phase without a load")
	}
}

// liveHeap is what the heap of a proxy without sessions holds after collections, in bytes: the least of what it reports while
// some run. Each scrape allocates, so that they come.
func (p *instance) liveHeap() int {
	p.t.Helper()
	p.wantMetric(0, "connections", "state", "open")
	least, collections := math.MaxFloat64, math.MaxFloat64
	for m := p.metrics(); m.sum("go_gc_duration_seconds_count") < collections; m = p.metrics() {
		if collections == math.MaxFloat64 {
			collections = m.sum("go_gc_duration_seconds_count") + 5
		}
		least = min(least, m.sum("go_memstats_heap_alloc_bytes"))
	}
	return int(least)
}

// throughput is how many GETs a second are answered while something happens.
func (p *instance) throughput(while func()) float64 {
	p.t.Helper()
	gets := func() float64 { return p.metrics().sum("commands_total", "command", "GET") }
	begun, first := time.Now(), gets()
	while()
	return (gets() - first) / time.Since(begun).Seconds()
}

func median[T int | float64](of []T) T {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// holding is what a process has to give back.
type holding struct{ descriptors, watches, goroutines int }

func (h holding) within(other holding) bool {
	return h.descriptors <= other.descriptors && h.watches <= other.watches && h.goroutines <= other.goroutines
}

func (h holding) String() string {
	return fmt.Sprintf("%d descriptors, %d watched directories, %d goroutines", h.descriptors, h.watches, h.goroutines)
}

func (p *instance) holds() holding {
	p.t.Helper()
	h := holding{goroutines: int(p.metrics().sum("go_goroutines"))}
	infos, err := filepath.Glob(p.proc("fdinfo/*"))
	if err != nil || len(infos) == 0 {
		p.t.Fatalf("descriptors: %v, %v", infos, err)
	}
	h.descriptors = len(infos)
	for _, info := range infos {
		text, _ := os.ReadFile(info) // one that was closed meanwhile watches nothing
		h.watches += strings.Count(string(text), "inotify wd:")
	}
	return h
}

func (p *instance) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), name)
}
