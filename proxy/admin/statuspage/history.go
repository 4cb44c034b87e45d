package statuspage

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// SampleInterval is the time between two samples.
	SampleInterval = 5 * time.Second
	// maxSamples are 15 minutes.
	maxSamples = int(15 * time.Minute / SampleInterval)
	// latencySamples are the minute over which Latency is counted.
	latencySamples = int(time.Minute / SampleInterval)
)

// Sample is what was counted so far at one time.
type Sample struct {
	Time                                             time.Time
	Connections                                      int
	Commands, Handshakes, Refused, BytesIn, BytesOut uint64
	// Seconds are how long commands took, by the way they went. The bounds of a way never change.
	Seconds map[string]Durations
}

// Durations are counted in buckets: Counts[i] of them took up to Bounds[i] seconds and longer than Bounds[i-1], the last one longer than
// all bounds.
type Durations struct {
	Bounds []float64
	Counts []uint64
}

// since returns what was counted since before, and how many that are.
func (d Durations) since(before Durations) (Durations, uint64) {
	diff, all := Durations{d.Bounds, slices.Clone(d.Counts)}, uint64(0)
	for i := range diff.Counts {
		if i < len(before.Counts) {
			diff.Counts[i] -= before.Counts[i]
		}
		all += diff.Counts[i]
	}
	return diff, all
}

// quantile estimates how long the share q of all durations took at most, as if those of one bucket were spread evenly in it. Beyond the
// last bound nothing is known: that bound is returned.
func (d Durations) quantile(q float64, all uint64) float64 {
	rank, below, from := q*float64(all), 0.0, 0.0
	for i, to := range d.Bounds {
		n := float64(d.Counts[i])
		if n > 0 && below+n >= rank {
			return from + (to-from)*max(0, rank-below)/n
		}
		below, from = below+n, to
	}
	return from
}

// point is one element of each Series.
type point struct {
	connections int
	rates       Rates
	p99         map[string]*float64
}

// History keeps the samples of the last 15 minutes, in memory that does not grow. The zero value is empty. Safe for concurrent use.
type History struct {
	mu     sync.Mutex
	points []point  // the newest last; guarded by mu
	last   []Sample // the newest last, of a minute and the one before; guarded by mu
}

// Add takes the next sample.
func (h *History) Add(s Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.last); n > 0 {
		if len(h.points) == maxSamples {
			h.points = slices.Delete(h.points, 0, 1)
		}
		h.points = append(h.points, between(&h.last[n-1], &s))
		if n > latencySamples {
			h.last = slices.Delete(h.last, 0, 1)
		}
	}
	h.last = append(h.last, s)
}

// between returns what happened between two samples.
func between(from, to *Sample) point {
	p := point{connections: to.Connections, p99: make(map[string]*float64, len(to.Seconds))}
	seconds := max(to.Time.Sub(from.Time).Seconds(), 1e-3)
	per := func(a, b uint64) float64 { return float64(b-a) / seconds }
	p.rates = Rates{per(from.Commands, to.Commands), per(from.Handshakes, to.Handshakes), per(from.Refused, to.Refused),
		per(from.BytesIn, to.BytesIn), per(from.BytesOut, to.BytesOut)}
	for path, d := range to.Seconds {
		if diff, all := d.since(from.Seconds[path]); all > 0 {
			p99 := diff.quantile(.99, all)
			p.p99[path] = &p99
		}
	}
	return p
}

// Fill tells t of the samples.
func (h *History) Fill(t *Traffic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.points)
	t.History = Series{
		IntervalSeconds: SampleInterval.Seconds(), Connections: make([]int, n), Commands: make([]float64, n),
		Handshakes: make([]float64, n), Refused: make([]float64, n), P99: map[string][]*float64{},
	}
	t.Latency = []Latency{}
	if n == 0 {
		return
	}
	first, last := &h.last[0], &h.last[len(h.last)-1]
	t.History.End = last.Time
	for path := range last.Seconds {
		t.History.P99[path] = make([]*float64, n)
	}
	for i, p := range h.points {
		s := &t.History
		s.Connections[i], s.Commands[i], s.Handshakes[i], s.Refused[i] = p.connections, p.rates.Commands, p.rates.Handshakes, p.rates.Refused
		for path, all := range s.P99 {
			all[i] = p.p99[path]
		}
	}
	rates := h.points[n-1].rates
	t.Rates = &rates
	for path, d := range last.Seconds {
		if diff, all := d.since(first.Seconds[path]); all > 0 {
			t.Latency = append(t.Latency, Latency{path, all, diff.quantile(.5, all), diff.quantile(.99, all), diff.quantile(.999, all)})
		}
	}
	slices.SortFunc(t.Latency, func(a, b Latency) int { return strings.Compare(a.Path, b.Path) })
}
