package proxy

import (
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// onALane is a session on an open lane whose backend takes everything and says nothing: what it says is handed to
// deliver by the test. Somebody else is to write to the client.
func onALane(t testing.TB) (*session, *lane) {
	t.Helper()
	return onALaneOf(t, Config{})
}

// onALaneOf is onALane of a Server that is configured so.
func onALaneOf(t testing.TB, c Config) (*session, *lane) {
	t.Helper()
	c.TLS, c.Backend, c.Log = testPKI().serverConfig(), BackendConfig{Target: backendAt(""), Shared: true}, zerolog.Nop()
	srv, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fakeBackend(t, func(c net.Conn) { io.Copy(io.Discard, c) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	sock, err := netio.NewSocket(conn, srv.buffers.NewAccount(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{server: srv, stripe: &srv.stripes[0]}
	s.queue.init(srv.buffers.NewAccount())
	s.queue.out, s.queue.turn = &outbox{account: s.account(), most: srv.c.SessionBuffer}, true
	l := &lane{set: &laneSet{server: srv}, up: &backend.Conn{Socket: sock, Stream: sock}, wake: make(chan struct{}, 1)}
	l.in.replies.Strict = true
	l.nonces(false)
	return s, l
}

// ride takes a batch of n commands to the lane and back.
func (s *session) ride(t testing.TB, l *lane, batch, replies []byte, n int) {
	c := &s.client
	c.out, c.pend, c.replies, c.frames = batch, append(c.pend[:0], slot{n: n}), n, n
	if got := l.submit(s, s.server.now()); got != submitted {
		t.Fatalf("submission %v", got)
	}
	s.deliverTo(t, l, replies)
}

// deliverTo hands the replies to the session, whose client takes them at once.
func (s *session) deliverTo(t testing.TB, l *lane, replies []byte) {
	if err := l.deliver(replies); err != nil {
		t.Fatal(err)
	}
	q := &s.queue
	q.mu.Lock()
	for b, ok := q.out.take(); ok; b, ok = q.out.take() {
		q.out.unsent -= b.n
		b.free(s.account())
	}
	q.mu.Unlock()
	l.mu.Lock()
	l.unnonced = 0
	l.mu.Unlock()
}

func TestLaneAllocatesNothingForACommand(t *testing.T) {
	for _, n := range []int{1, 16, 100} {
		s, l := onALane(t)
		batch, replies := []byte(strings.Repeat(cmd("GET", "key:000001"), n)), []byte(strings.Repeat(bulk("value"), n))
		ride := func() { s.ride(t, l, batch, replies, n) }
		ride() // takes its buffers
		if got := testing.AllocsPerRun(200, ride); got != 0 {
			t.Errorf("%d commands: %v allocations", n, got)
		}
		if l.commands != 0 || l.slots.Len() != 0 || s.queue.owed != 0 {
			t.Errorf("%d commands and %d slots on the lane, %d owed", l.commands, l.slots.Len(), s.queue.owed)
		}
	}
}

func BenchmarkLane(b *testing.B) {
	for name, n := range map[string]int{"1 command": 1, "pipeline of 16": 16} {
		b.Run(name, func(b *testing.B) {
			s, l := onALane(b)
			batch, replies := []byte(strings.Repeat(cmd("GET", "key:000001"), n)), []byte(strings.Repeat(bulk("value"), n))
			b.ReportAllocs()
			for b.Loop() {
				s.ride(b, l, batch, replies, n)
			}
		})
	}
}

// rideWritten takes so many batches of one command to the lane and back, while the lane's writer has the token: they are
// copied, and go out in one write.
func (s *session) rideWritten(t testing.TB, l *lane, batch, reply []byte, times int) {
	l.mu.Lock()
	l.token = true
	l.mu.Unlock()
	c := &s.client
	for range times {
		c.out, c.pend, c.replies, c.frames = batch, append(c.pend[:0], slot{n: 1}), 1, 1
		if got := l.submit(s, s.server.now()); got != submitted {
			t.Fatalf("submission %v", got)
		}
	}
	for l.writeBatch() {
	}
	s.deliverTo(t, l, []byte(strings.Repeat(string(reply), times)))
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
	s, l := onALaneOf(t, Config{BufferLimit: limit})
	batch, reply := []byte(cmd("SET", "k", strings.Repeat("v", 60<<10))), []byte("+OK\r\n")
	ride := func() { s.rideWritten(t, l, batch, reply, 4) }
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
	held := l.account().Held() + l.account().Kept()
	if held < 2*4*60<<10 {
		t.Errorf("%d bytes are counted", held)
	}
	l.shed()
	if n := l.out.held() + l.spare.held() + l.slots.Cap(); n > fewSlots {
		t.Errorf("an idle lane keeps %d", n)
	}
	if got := l.account().Held(); got != 0 {
		t.Errorf("an idle lane holds %d bytes", got)
	}
	l.account().Buffers().Fix(limit) // scarce
	for range 3 {                    // each of its buffers is written
		ride()
	}
	if n := l.out.held() + l.spare.held(); n > netio.ChunkSize {
		t.Errorf("where memory is scarce the lane keeps %d bytes", n)
	}
}
