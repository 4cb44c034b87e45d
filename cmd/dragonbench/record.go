package main

import (
	"maps"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// recorderShards keep connections from waiting for each other's lock.
	recorderShards = 8
	// Latencies between 1 us and longestLatency are kept with three digits.
	longestLatency = 10 * time.Minute
	latencyDigits  = 3
)

// recorder counts replies and errors; any number of goroutines may add.
type recorder struct {
	shards [recorderShards]shard
}

type shard struct {
	mu         sync.Mutex
	latency    *hdrhistogram.Histogram // nanoseconds
	count      int64
	handshakes int64
	slow       int64
	closed     int64
	unanswered int
	errors     map[string]int
	leaves     map[string]bool
	session    string
}

func newRecorder() *recorder {
	r := &recorder{}
	for i := range r.shards {
		r.shards[i].latency = newLatency()
	}
	r.reset()
	return r
}

func newLatency() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(longestLatency), latencyDigits)
}

// reset begins a window.
func (r *recorder) reset() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		s.latency.Reset()
		s.count, s.handshakes, s.slow, s.closed, s.unanswered = 0, 0, 0, 0, 0
		s.errors, s.leaves = map[string]int{}, map[string]bool{}
		s.mu.Unlock()
	}
}

func (r *recorder) shard(i int) *shard { return &r.shards[i%recorderShards] }

// add counts n replies that took this long each.
func (s *shard) add(n int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count += int64(n)
	s.recordLocked(n, took)
}

func (s *shard) recordLocked(n int, took time.Duration) {
	took = min(max(took, time.Microsecond), longestLatency)
	_ = s.latency.RecordValues(int64(took), int64(n)) // in range, as just seen to
}

// wait counts a command that was due this long ago and has no answer.
func (s *shard) wait(waited time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unanswered++
	s.recordLocked(1, waited)
}

func (s *shard) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errors[errorKind(err)]++
}

// met notes a finished handshake beside the commands.
func (s *shard) met(leaf string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshakes++
	s.leaves[leaf] = true
}

// slowOneAnswered notes a slow command beside the others, whose latencies alone are recorded.
func (s *shard) slowOneAnswered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow++
}

// laggardClosed notes that the peer closed a client that did not keep up.
func (s *shard) laggardClosed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
}

func (s *shard) agreed(session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = session
}

// window is what was added since reset.
func (r *recorder) window(took time.Duration) window {
	w := window{Seconds: took.Seconds(), Errors: map[string]int{}}
	all := newLatency()
	leaves := map[string]bool{}
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		all.Merge(s.latency)
		w.Count += s.count
		w.Handshakes += s.handshakes
		w.Slow += s.slow
		w.Closed += s.closed
		w.Unanswered += s.unanswered
		for kind, n := range s.errors {
			w.Errors[kind] += n
		}
		maps.Copy(leaves, s.leaves)
		if s.session != "" {
			w.Session = s.session
		}
		s.mu.Unlock()
	}
	w.Leaves = len(leaves)
	if all.TotalCount() == 0 {
		return w
	}
	micros := func(v int64) float64 { return float64(v) / 1e3 }
	w.P50 = micros(all.ValueAtQuantile(50))
	w.P99 = micros(all.ValueAtQuantile(99))
	w.P999 = micros(all.ValueAtQuantile(99.9))
	w.Max = micros(all.Max())
	return w
}
