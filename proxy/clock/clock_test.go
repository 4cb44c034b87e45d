package clock

import (
	"testing"
	"time"
)

func TestInstantsAreAsFarApartAsWhatWasAdded(t *testing.T) {
	var a Atomic
	begun := a.Load()
	for _, d := range []time.Duration{0, time.Nanosecond, time.Hour, -time.Hour} {
		a.Store(begun.Add(d))
		if got := a.Load().Sub(begun); got != d {
			t.Errorf("%v after the start is %v after it", d, got)
		}
	}
}

func TestAtomicIsSwappedOnlyFromWhatWasExpected(t *testing.T) {
	var a Atomic
	if last := a.Swap(1); last != 0 || a.Load() != 1 {
		t.Errorf("%d was replaced by %d, want 0 by 1", last, a.Load())
	}
	if a.CompareAndSwap(0, 2) || a.Load() != 1 {
		t.Errorf("it was swapped from 0, or is %d instead of 1", a.Load())
	}
	if !a.CompareAndSwap(1, 2) || a.Load() != 2 {
		t.Errorf("it was not swapped from 1, and is %d", a.Load())
	}
}

func TestClockStartsAtZeroAndNeverGoesBack(t *testing.T) {
	outside := time.Now()
	now := Start()
	last := now()
	if most := time.Since(outside); last < 0 || last.Sub(0) > most {
		t.Errorf("it began at %v, at most %v after the test", last.Sub(0), most)
	}
	for range 1000 {
		i := now()
		if i < last {
			t.Fatalf("%d after %d", i, last)
		}
		last = i
	}
}
