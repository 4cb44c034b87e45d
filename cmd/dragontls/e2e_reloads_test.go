//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Many reloads under load: no client fails, nothing is left behind, and the load hardly notices. The full run, which is
// where the throughput means something (0.95 of that without reloads is the aim):
//
//	E2E_RELOADS=1000 go test -run TestReloadsUnderLoad -timeout 30m -v ./cmd/dragontls
func TestReloadsUnderLoad(t *testing.T) {
	n := numberFrom(t, "E2E_RELOADS", 30)
	ca, dir := newCA(t, "reloads"), t.TempDir()
	kind := rotations[slices.IndexFunc(rotations, func(r rotation) bool { return r.name == "..data" })] // never a pair that does not match
	current := issue(t, ca)
	kind.first(t, dir, current)
	p := ownCA(t, ca, redisServer(t).url(), "TLS_CERT_FILE="+kind.cert(dir), "TLS_KEY_FILE="+kind.key(dir), "LOG_LEVEL=info").wantReady()
	before := p.holds()
	c := crowd(t, p, current.serial, load{
		pace:      4 * time.Millisecond,
		benchmark: []string{"-t", "get", "-d", "64", "-c", "50", "-n", "1000000"},
	})

	reloads, memory, worst := 0, []int{}, time.Duration(0)
	reload := func() {
		reloads++
		next := issue(t, ca)
		c.allow(next.serial)
		kind.rotate(t, dir, reloads, next)
		begun := time.Now()
		eventually(t, "new clients see the new certificate", func() bool { return c.served.Load() == next.serial })
		worst = max(worst, time.Since(begun))
		c.only(next.serial)
		memory = append(memory, p.pss())
	}
	// A phase with reloads and one of the same length without, in turns, so that whatever else the machine does falls on both.
	rounds := min(25, max(1, n/10))
	var with, without, ratios []float64
	length := 2 * time.Second
	quiet := func() { without = append(without, p.throughput(func() { <-time.After(length) })) }
	quiet() // brings memory to its working level
	without = nil
	for round := range rounds {
		if round%2 == 1 {
			quiet()
		}
		begun := time.Now()
		with = append(with, p.throughput(func() {
			for reloads < n*(round+1)/rounds {
				reload()
			}
		}))
		length = time.Since(begun)
		if round%2 == 0 {
			quiet()
		}
		ratios = append(ratios, with[round]/without[round])
	}
	c.stop(t, n, worst)

	third := max(1, n/3)
	early, late := median(memory[:third]), median(memory[n-third:])
	after := p.holds()
	eventually(t, fmt.Sprintf("what %v held becomes no more than %v", after, before), func() bool {
		after = p.holds()
		return after.within(before)
	})
	t.Logf("GET/s with reloads %.0f, without %.0f; ratio %.3f, of each round %.3f; Pss %d, then %d KiB; before %v, after %v",
		median(with), median(without), median(ratios), ratios, early, late, before, after)
	if slices.Min(slices.Concat(with, without)) == 0 {
		t.Error("a phase without a load")
	}
	bound := early + early/3
	if racing() {
		bound = 2 * early // the detector's own memory grows for a while
	}
	if late > bound {
		t.Errorf("Pss grew from %d to %d KiB", early, late)
	}
	m := p.metrics()
	if ok, failed := m.sum("reload_total", "result", "ok"), m.sum("reload_total", "result", "failed"); ok != float64(n) || failed != 0 {
		t.Errorf("got %v reloads and %v that failed, want %d and none", ok, failed, n)
	}
	p.wantEnd()
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

// pss is its share of memory in KiB (proc_pid_smaps(5)).
func (p *instance) pss() int {
	p.t.Helper()
	f, err := os.Open(p.proc("smaps_rollup"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "Pss:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				p.t.Fatal(err)
			}
			return kib
		}
	}
	p.t.Fatal("no Pss in smaps_rollup")
	return 0
}

func (p *instance) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), name)
}
