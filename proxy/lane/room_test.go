package lane

import (
	"fmt"
	"testing"

	"dragontls/proxy/netio"
)

func TestWaitersOfALaneAreServedInTurn(t *testing.T) {
	l := &Lane{inFlight: inFlight{commands: MaxCommands - 10}}
	occupy := func(n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.commands += n
		l.loadLocked()
		l.wakeWaiterLocked()
	}
	var all [4]*rider
	for i := range all {
		all[i] = newRider(t, netio.NewBuffers(0))
	}
	room := func(i, n int) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		all[i].woken = false
		return l.roomLocked(&all[i].seat, n, 0)
	}
	woken := func(i int) bool { return all[i].woken }
	if room(0, 20) || room(1, 1) || room(2, 1) || room(1, 1) {
		t.Fatal("there was room, or somebody passed the one who waits")
	}
	occupy(-5)
	if woken(0) || woken(1) || room(0, 20) {
		t.Fatal("there is too little for the first, so that nobody is to look")
	}
	occupy(-5)
	if !woken(0) || woken(1) || room(3, 1) || !room(0, 20) {
		t.Fatal("not in turn")
	}
	occupy(10)
	if !woken(1) || woken(2) || !room(1, 1) {
		t.Fatal("the second is to follow")
	}
	l.StopWaiting(&all[2].seat)
	if !woken(3) || !room(3, 1) || l.waiters.Len() != 0 {
		t.Fatal("who gave up stands in the way")
	}
	l.bytes = MaxBytes - 1
	if l.roomLocked(&all[0].seat, 1, 2) {
		t.Fatal("more bytes than the window has")
	}
	l.StopWaiting(&all[0].seat)
	l.commands, l.bytes = 0, 0
	if !l.roomLocked(&all[0].seat, 1, 2*MaxBytes) {
		t.Fatal("what is more than a window fits when nothing is in flight")
	}
}

// BenchmarkWaiters shows what it costs to have sessions wait for room and then get it, one after the other: the time for each
// may not grow with their number.
func BenchmarkWaiters(b *testing.B) {
	for _, n := range []int{250, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := make([]*rider, n)
			for i := range all {
				all[i] = newRider(b, netio.NewBuffers(0))
			}
			for b.Loop() {
				l := &Lane{inFlight: inFlight{commands: MaxCommands}}
				for _, r := range all {
					if l.roomLocked(&r.seat, 1, 0) {
						b.Fatal("a full lane had room")
					}
				}
				for _, r := range all {
					l.commands--
					if !l.Waits(&r.seat) || !l.roomLocked(&r.seat, 1, 0) {
						b.Fatal("the first in turn got no room")
					}
					l.commands++
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/each")
		})
	}
}
