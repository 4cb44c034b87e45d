package lane

import (
	"runtime"
	"strings"
	"testing"

	"dragontls/proxy/netio"
)

const value = "$5\r\nvalue\r\n"

func TestLaneAllocatesNothingForACommand(t *testing.T) {
	for _, n := range []int{1, 16, 100} {
		b := netio.NewBuffers(0)
		l, r := newLane(t, b), newRider(t, b)
		commands, replies := []byte(strings.Repeat(cmd("GET", "key:000001"), n)), []byte(strings.Repeat(value, n))
		ride := func() {
			r.submit(l, commands, n, l.set.all.c.Now())
			l.deliverTo(r, replies)
		}
		ride() // takes its buffers
		if got := testing.AllocsPerRun(200, ride); got != 0 {
			t.Errorf("%d commands: %v allocations", n, got)
		}
		if l.commands != 0 || l.slots.Len() != 0 || r.owed != 0 {
			t.Errorf("%d commands and %d slots on the lane, %d owed", l.commands, l.slots.Len(), r.owed)
		}
	}
}

func BenchmarkLane(b *testing.B) {
	for name, n := range map[string]int{"1 command": 1, "pipeline of 16": 16} {
		b.Run(name, func(b *testing.B) {
			buffers := netio.NewBuffers(0)
			l, r := newLane(b, buffers), newRider(b, buffers)
			commands, replies := []byte(strings.Repeat(cmd("GET", "key:000001"), n)), []byte(strings.Repeat(value, n))
			b.ReportAllocs()
			for b.Loop() {
				r.submit(l, commands, n, l.set.all.c.Now())
				l.deliverTo(r, replies)
			}
		})
	}
}

// rideWritten takes so many batches of one command to the lane and back, while the lane's writer has the token: they are
// copied, and go out in one write.
func (l *Lane) rideWritten(r *rider, command, reply []byte, times int) {
	l.mu.Lock()
	l.token = true
	l.mu.Unlock()
	for range times {
		r.submit(l, command, 1, l.set.all.c.Now())
	}
	for l.writeBatch() {
	}
	l.deliverTo(r, []byte(strings.Repeat(string(reply), times)))
}

// allocated is how many bytes this process allocates while f runs. Under the race detector pools drop every fourth of what they
// are given: these are counted too.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A lane keeps what large commands made it grow to while it is in use, unless memory is scarce, and counts it. Idle, it
// keeps nothing.
func TestLaneKeepsItsBuffersWhileItWorks(t *testing.T) {
	const limit = 1 << 30
	b := netio.NewBuffers(limit)
	l, r := newLane(t, b), newRider(t, b)
	batch, reply := []byte(cmd("SET", "k", strings.Repeat("v", 60<<10))), []byte("+OK\r\n")
	ride := func() { l.rideWritten(r, batch, reply, 4) }
	ride()
	ride() // takes the second buffer
	const rides = 100
	if got := allocated(func() {
		for range rides {
			ride()
		}
	}) / rides; got > uint64(len(batch)) {
		t.Errorf("%d bytes are allocated for 4 commands of %d bytes", got, len(batch))
	}
	held := l.Account().Held() + l.Account().Kept()
	if held < 2*4*60<<10 {
		t.Errorf("%d bytes are counted", held)
	}
	l.shed()
	if n := l.out.held() + l.spare.held() + l.slots.Cap(); n > fewSlots {
		t.Errorf("an idle lane keeps %d", n)
	}
	if got := l.Account().Held(); got != 0 {
		t.Errorf("an idle lane holds %d bytes", got)
	}
	b.Fix(limit)  // scarce
	for range 3 { // each of its buffers is written
		ride()
	}
	if n := l.out.held() + l.spare.held(); n > netio.ChunkSize {
		t.Errorf("where memory is scarce the lane keeps %d bytes", n)
	}
}
