package backend

import (
	"testing"
	"time"
)

// Tokens come at their pace whatever was taken before, and never more than a burst of them.
func TestBucketGivesABurstAndThenItsPace(t *testing.T) {
	t.Parallel()
	now := int64(0)
	b := &Bucket{pace: Pace{Burst: 3, Every: time.Second}, now: func() int64 { return now }}
	second := int64(time.Second)
	for i, step := range []struct{ now, wait int64 }{
		{0, 0}, {0, 0}, {0, 0}, {0, second}, {second / 2, second / 2}, {second, 0}, {second, second}, {3 * second, 0}, {3 * second, 0}, {3 * second, second},
		{100 * second, 0}, {100 * second, 0}, {100 * second, 0}, {100 * second, second},
	} {
		now = step.now
		if got := b.Take(); got != step.wait {
			t.Fatalf("step %d: wait %v, want %v", i, time.Duration(got), time.Duration(step.wait))
		}
	}
	for at, want := range map[int64]bool{102 * second: false, 103 * second: true} {
		if now = at; b.isFull() != want {
			t.Errorf("full at %v: %v", time.Duration(at), !want)
		}
	}
}
