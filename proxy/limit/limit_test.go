package limit

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
)

// lines returns what was logged since the last call.
func lines(b *bytes.Buffer) []string {
	text := strings.TrimSpace(b.String())
	b.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// The first time is told at once, and then every Interval at most how often since: no time is left untold, and no line is
// without one.
func TestLimitSaysHowOftenItWasReached(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	var now clock.Atomic
	l := New(Options{Name: "SEATS", Value: 7, Message: "SEATS is reached", Log: zerolog.New(&logs), Now: now.Load})
	by := func(name string) func(*zerolog.Event) { return func(e *zerolog.Event) { e.Str("by", name) } }
	wantLine := func(want string) {
		t.Helper()
		got := lines(&logs)
		if want == "" && len(got) == 0 || len(got) == 1 && got[0] == want {
			return
		}
		t.Errorf("logged %q, want %q", got, want)
	}
	l.Tell()
	wantLine("")
	l.Reached(by("one"))
	wantLine(`{"level":"warn","limit":"SEATS","count":1,"value":7,"by":"one","message":"SEATS is reached"}`)
	for range 41 {
		l.Reached(by("another"))
	}
	l.Tell()
	now.Store(now.Load().Add(Interval - 1))
	l.Tell()
	l.Reached(by("another"))
	wantLine("")
	now.Store(now.Load().Add(1))
	l.Tell()
	wantLine(`{"level":"warn","limit":"SEATS","count":42,"value":7,"message":"SEATS is reached"}`)
	now.Store(now.Load().Add(Interval))
	l.Tell()
	wantLine("")
	l.Reached(nil)
	wantLine(`{"level":"warn","limit":"SEATS","count":1,"value":7,"message":"SEATS is reached"}`)
	if n := l.Count(); n != 44 {
		t.Errorf("counted %d, want 44", n)
	}
	var none *Limit
	none.Reached(nil)
	none.Tell()
}

// However many goroutines meet a limit at once, their times add up.
func TestLimitLosesNoTime(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	var now atomic.Int64
	told := uint64(0)
	l := New(Options{Message: "full", Log: zerolog.New(zerolog.SyncWriter(&logs)), Now: func() clock.Instant { return clock.Instant(now.Add(int64(Interval) / 100)) }})
	const each, many = 1000, 8
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			for range each {
				l.Reached(nil)
			}
		})
	}
	all.Wait()
	now.Add(int64(Interval))
	l.Tell()
	for _, line := range lines(&logs) {
		var one struct{ Count uint64 }
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		told += one.Count
	}
	if told != each*many || l.Count() != each*many {
		t.Errorf("%d told and %d counted of %d", told, l.Count(), each*many)
	}
}

// In a second MaxLines pass, and the others are counted.
func TestLinesPassAtALimitedRate(t *testing.T) {
	t.Parallel()
	var l Lines[int]
	at := clock.Instant(5 * time.Hour)
	for second := time.Duration(0); second < 30*time.Second; second += 10 * time.Second {
		passed := 0
		for i := range time.Duration(100) {
			if l.Pass(at.Add(second+i), int(i)) {
				passed++
			}
		}
		if passed != MaxLines {
			t.Errorf("after %v: %d lines passed, want %d", second, passed, MaxLines)
		}
		if more := l.TakeMore(at.Add(second + 100)); more != 100-MaxLines {
			t.Errorf("after %v: %d more lines, want %d", second, more, 100-MaxLines)
		}
		l.Pass(at.Add(second+200), 0)
		if more := l.TakeMore(at.Add(second + 300)); more != 0 {
			t.Errorf("after %v: told of %d more lines again within the second", second, more)
		}
		if more := l.TakeMore(at.Add(second + time.Second + 100)); more != 1 {
			t.Errorf("after %v: %d more lines afterwards, want 1", second, more)
		}
	}
}

// Whatever one client does, others have lines of their own in the same second, as long as there are any.
func TestLinesOfOneClientLeaveSomeForOthers(t *testing.T) {
	t.Parallel()
	var l Lines[string]
	passed := map[string]int{}
	write := func(now clock.Instant, n int, client string) {
		for range n {
			if l.Pass(now, client) {
				passed[client]++
			}
		}
	}
	for second := range clock.Instant(3) {
		now := second * clock.Instant(time.Second)
		clear(passed)
		for _, client := range []string{"a", "b", "a", "c", "d", "a", "late"} {
			write(now, 100, client)
		}
		for _, client := range []string{"a", "b", "c", "d"} {
			if n := passed[client]; n != MaxLinesOfOne {
				t.Errorf("second %d: %d lines of %s passed, want %d", second, n, client, MaxLinesOfOne)
			}
		}
		if n := passed["late"]; n != 0 {
			t.Errorf("second %d: %d lines too many passed", second, n)
		}
		if n := l.TakeMore(now); n != 700-MaxLines {
			t.Errorf("second %d: %d more lines, want %d", second, n, 700-MaxLines)
		}
	}
}

// A flood costs nothing but an addition.
func TestLinesThatDoNotPassAllocateNothing(t *testing.T) {
	var l Lines[int]
	for i := range MaxLines + 1 {
		l.Pass(1, i)
	}
	full := New(Options{Message: "full", Log: zerolog.Nop(), Now: func() clock.Instant { return 1 }})
	full.Reached(nil)
	if n := testing.AllocsPerRun(100, func() { l.Pass(2, 0); full.Reached(nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
