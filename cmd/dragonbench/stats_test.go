package main

import (
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{9, 1, 5}, spread{5, 1, 9}},
		{[]float64{8, 2, 4, 6}, spread{5, 2, 8}},
	} {
		if got := spreadOf(test.values); got != test.want {
			t.Errorf("%v: got %v, want %v", test.values, got, test.want)
		}
	}
}

func samplesOf(rates ...float64) (all []sample) {
	for _, r := range rates {
		all = append(all, sample{Rate: r})
	}
	return all
}

func TestRatioComparesRoundWithRound(t *testing.T) {
	// The machine was half as fast in the second round: both lost the same.
	ours, theirs := &result{Samples: samplesOf(200, 100, 220)}, &result{Samples: samplesOf(100, 50, 110)}
	if got, want := ratio(ours, theirs, rate), (spread{2, 2, 2}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := ratio(ours, &result{Samples: samplesOf(0, 0, 0)}, rate); got != (spread{}) {
		t.Errorf("against nothing: got %v, want zeros", got)
	}
}

func TestRecorderCountsWhatItIsTold(t *testing.T) {
	r := newRecorder()
	r.shard(0).add(98, time.Millisecond)
	r.shard(9).add(2, time.Second)
	r.shard(3).fail(errWrongReply)
	r.shard(4).wait(2 * time.Second)
	w := r.window(2 * time.Second)
	if w.Count != 100 || w.Unanswered != 1 || w.Errors["wrong reply"] != 1 {
		t.Errorf("got %+v", w)
	}
	near := func(name string, got, want float64) {
		if got < 0.99*want || got > 1.01*want {
			t.Errorf("%s: got %v, want about %v", name, got, want)
		}
	}
	near("p50", w.P50, 1e3)
	near("p99", w.P99, 1e6)
	near("max", w.Max, 2e6)
	r.reset()
	if w := r.window(time.Second); w.Count != 0 || w.Max != 0 || len(w.Errors) != 0 || w.Unanswered != 0 {
		t.Errorf("behind reset: got %+v", w)
	}
}
