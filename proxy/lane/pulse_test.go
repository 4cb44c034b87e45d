package lane

import (
	"math/rand/v2"
	"testing"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// Many commands at once call for no other lane where the lane is without any for much of the time.
func TestKeyGetsNoOtherLaneForALaneThatIsNotBusy(t *testing.T) {
	t.Parallel()
	l := newLane(t, netio.NewBuffers(0))
	l.set.most, l.set.enough = 2, 2
	l.set.refs.Store(2)
	l.set.open.Store(&[]*Lane{l})
	l.load.Store(growAbove + 1)
	now := clock.Instant(time.Hour)
	l.pulse.window = now
	for i, tt := range []struct {
		idle time.Duration // in a window of 50 ms
		busy bool
	}{
		{50 * time.Millisecond, false}, {2 * time.Millisecond, false}, {time.Millisecond, true}, {12 * time.Millisecond, true},
		{13 * time.Millisecond, false}, {0, true},
	} {
		l.pulse.idleSince = now
		l.pulse.begin(now.Add(tt.idle))
		l.judgePulseLocked(now.Add(busyWindow - 1))
		if l.pulse.window != now {
			t.Errorf("%d: judged before its time", i)
		}
		now = now.Add(busyWindow)
		l.judgePulseLocked(now)
		if l.busy.Load() != tt.busy || l.set.calledFor(l) != tt.busy {
			t.Errorf("%d: nothing in flight for %v of %v: busy %v, another lane is called for: %v",
				i, tt.idle, busyWindow, l.busy.Load(), l.set.calledFor(l))
		}
	}
	l.load.Store(growAbove)
	if l.set.calledFor(l) {
		t.Error("another lane is called for with few commands in flight")
	}
}

// Sessions take the first lane with room to spare, and spread over all where the backend takes long for each command.
func TestSessionsTakeTheFirstLaneUnlessTheBackendIsSlow(t *testing.T) {
	t.Parallel()
	first := newLane(t, netio.NewBuffers(0))
	set := first.set
	other := newLaneOn(set, first.up)
	set.open.Store(&[]*Lane{first, other})
	want := func(why string, l *Lane) {
		t.Helper()
		if set.Choose(0) != l {
			t.Errorf("%s: the other lane was chosen", why)
		}
	}
	first.load.Store(growAbove)
	want("few commands", first)
	first.load.Store(growAbove + 1)
	want("many, and it is not busy", first)
	first.busy.Store(true)
	want("many, and it is busy", other)
	first.load.Store(growAbove)
	want("few, and it is busy", first)
	first.late.Store(true)
	want("late", other)
	first.late.Store(false)
	now := clock.Instant(time.Hour)
	for _, tt := range []struct {
		each time.Duration
		slow bool
	}{{lateEach, false}, {lateEach + 1, true}} {
		first.pulse.idleSince = now
		first.pulse.begin(now)
		n := int(2 * pulseWindow / tt.each)
		first.pulse.finished(n, now, now.Add(time.Duration(n)*tt.each))
		first.judgePulseLocked(now)
		if set.slow.Load() != tt.slow {
			t.Errorf("%v for a command: the backend is slow: %v", tt.each, !tt.slow)
		}
	}
	want("the backend is slow", other)

	set.all.Sweep(0)
	if set.slow.Load() {
		t.Error("Sweep does not have it judged anew")
	}
}

// What a lane that is judged only from pulse.due on is taken for is always what judging it each time finds.
func TestLaneIsJudgedInTime(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	phases := []struct {
		step   time.Duration // between two events, at most
		enters float64       // how likely an event is a command, not a reply
	}{
		{2 * time.Microsecond, 0.5}, {2 * time.Microsecond, 0.4}, {20 * time.Microsecond, 0.5}, {60 * time.Microsecond, 0.4}, {time.Millisecond, 0.4},
		{15 * time.Millisecond, 0.5},
	}
	each, due := newLane(t, netio.NewBuffers(0)), newLane(t, netio.NewBuffers(0))
	var seats [2]Seat
	now, judged := clock.Instant(time.Hour), 0
	var late, busy, slow int
	for i := range 200_000 {
		phase := phases[i/5000%len(phases)]
		now = now.Add(time.Duration(1 + r.Int64N(int64(phase.step))))
		if r.IntN(2000) == 0 {
			now = now.Add(12 * time.Millisecond) // a stall
		}
		enters, big := r.Float64() < phase.enters, r.IntN(1000) == 0
		for k, l := range []*Lane{each, due} {
			switch {
			case enters:
				if l.commands == 0 {
					l.pulse.begin(now)
				}
				Entry{l, &seats[k], now}.Owe(1, false)
			case l.slots.Len() > 0:
				l.pulse.finished(1, l.slots.Pop().sent, now)
				l.commands--
				l.pulse.replied, l.pulse.big = now, false
			}
			if big && l.commands > 0 {
				l.pulse.big, l.pulse.due = true, 0
			}
			if k == 0 || now >= l.pulse.due {
				l.judgePulseLocked(now)
				judged += k
			}
			if l.commands == 0 {
				l.pulse.idleSince = now
			}
			if i%1000 == 0 {
				l.set.slow.Store(false)
			}
		}
		if each.late.Load() != due.late.Load() || each.busy.Load() != due.busy.Load() || each.set.slow.Load() != due.set.slow.Load() {
			t.Fatalf("step %d: late %v and %v, busy %v and %v, slow %v and %v", i, each.late.Load(), due.late.Load(),
				each.busy.Load(), due.busy.Load(), each.set.slow.Load(), due.set.slow.Load())
		}
		count := map[bool]int{true: 1}
		late, busy, slow = late+count[due.late.Load()], busy+count[due.busy.Load()], slow+count[due.set.slow.Load()]
	}
	if late == 0 || busy == 0 || slow == 0 || judged > 150_000 {
		t.Errorf("late %d times, busy %d, slow %d, judged %d", late, busy, slow, judged)
	}
}

func TestNonceIsDue(t *testing.T) {
	const now = clock.Instant(time.Hour)
	for _, tt := range []struct {
		commands int // since the last one, with that which is submitted
		since    time.Duration
		due      bool
	}{{1, 0, false}, {nonceCommands - 1, nonceInterval - 1, false}, {nonceCommands, 0, true}, {1, nonceInterval, true}} {
		b := netio.NewBuffers(0)
		l, r := newLane(t, b), newRider(t, b)
		l.unnonced, l.nonceAt = tt.commands-1, now.Add(-tt.since)
		r.submit(l, []byte(cmd("GET", "k")), 1, now)
		if got := l.slots.Len() == 2; got != tt.due {
			t.Errorf("%+v: due is %v", tt, got)
		}
	}
}
