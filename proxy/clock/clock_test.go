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
