package backend

import (
	"testing"
	"time"

	"dragontls/proxy/clock"
)

// Tokens come at their pace whatever was taken before, and never more than a burst of them.
func TestBucketGivesABurstAndThenItsPace(t *testing.T) {
	t.Parallel()
	now := clock.Instant(0)
	b := &Bucket{pace: Pace{Burst: 3, Every: time.Second}, now: func() clock.Instant { return now }}
	const second = time.Second
	for i, step := range []struct{ now, wait time.Duration }{
		{0, 0}, {0, 0}, {0, 0}, {0, second}, {second / 2, second / 2}, {second, 0}, {second, second}, {3 * second, 0}, {3 * second, 0}, {3 * second, second},
		{100 * second, 0}, {100 * second, 0}, {100 * second, 0}, {100 * second, second},
	} {
		now = clock.Instant(0).Add(step.now)
		if got := b.Take(); got != step.wait {
			t.Fatalf("step %d: wait %v, want %v", i, got, step.wait)
		}
	}
	for at, want := range map[time.Duration]bool{102 * second: false, 103 * second: true} {
		if now = clock.Instant(0).Add(at); b.isFull() != want {
			t.Errorf("full at %v: %v", at, !want)
		}
	}
}
