package lane

import (
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func cmd(args ...string) string { return string(resp.AppendCommand(nil, args...)) }

// rider is a session without a client: it keeps the replies that it receives. It checks what the lane says about them.
type rider struct {
	t      testing.TB
	seat   Seat
	batch  Batch
	tx     bool
	got    []byte
	owed   int
	woken  bool
	frames resp.Replies
}

func newRider(t testing.TB, b *netio.Buffers) *rider {
	r := &rider{t: t}
	r.seat.Rider, r.batch.Account, r.frames.Strict = r, b.NewAccount(), true
	return r
}

func (r *rider) Admit(to Entry, _ clock.Instant) (Result, Turn) {
	to.Owe(r.batch.Replies, r.tx)
	r.owed += r.batch.Replies
	return Submitted, nil
}

func (r *rider) Receive(b []byte, n int, half bool, _ clock.Instant) (slow bool, t Turn) {
	r.got = append(r.got, b...)
	whole := 0
	for len(b) > 0 {
		k, done, err := r.frames.Next(b)
		if err != nil || r.frames.Kind() == '>' {
			r.t.Errorf("%q is no reply (%v)", b, err)
			return false, nil
		}
		if b = b[k:]; done {
			whole++
		}
	}
	if r.owed -= n; whole != n || r.frames.Open() != half || r.owed < 0 {
		r.t.Errorf("%d whole replies and half a one: %v, said to be %d and %v; %d are still owed", whole, r.frames.Open(), n, half, r.owed)
	}
	return false, nil
}

func (r *rider) HasRoom()                     { r.woken = true }
func (r *rider) Big()                         {}
func (r *rider) WantResend([]byte, bool) bool { return false }
func (r *rider) Ended() bool                  { return false }
func (r *rider) Follow(func() bool)           { r.t.Error("it is no slow client") }
func (r *rider) Lose([]byte)                  { r.t.Error("its lane is not lost") }
func (r *rider) Cut()                         { r.t.Error("its lane is in order") }

// submit submits so many commands. It does the work of the lane's writer if the session has woken it: the kernel may not have
// taken the whole batch at once.
func (r *rider) submit(l *Lane, commands []byte, n int, now clock.Instant) {
	r.batch.Bytes, r.batch.Replies = commands, n
	if got := l.Submit(&r.seat, &r.batch, now); got != Submitted {
		r.t.Fatalf("the result is %v", got)
	}
	select {
	case <-l.wake:
		for l.writeBatch() {
		}
	default:
	}
}

// newLane is an open lane without goroutines, whose backend takes everything and says nothing: what it says is handed to
// deliver by the test.
func newLane(t testing.TB, b *netio.Buffers) *Lane {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { // ends with the connection
		if c, err := ln.Accept(); err == nil {
			io.Copy(io.Discard, c)
			c.Close()
		}
	})
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		conn.Close()
		running.Wait()
	})
	sock, err := netio.NewSocket(conn, b.NewAccount(), 0)
	if err != nil {
		t.Fatal(err)
	}
	sets := New(Config{
		Backend: backend.New(backend.Config{Target: func() (string, string, error) { return "unix", "/backend", nil }}), Buffers: b, Now: clock.Start(),
		Timeouts: Timeouts{LateAfter: time.Millisecond, SlowCommand: time.Hour, Idle: time.Hour, Unproven: time.Hour},
	})
	up := &backend.Conn{}
	up.Carry(sock, nil)
	l := newLaneOn(sets.Get(Key{}, backend.Login{}), up)
	l.set.most = 0 // so that nothing is dialled
	return l
}

func newLaneOn(set *Set, up *backend.Conn) *Lane {
	l := &Lane{set: set, up: up, wake: make(chan struct{}, 1)}
	l.in.replies.Strict = true
	l.nonceAt = math.MaxInt64 // none is due
	return l
}

// deliverTo hands a rider its replies.
func (l *Lane) deliverTo(r *rider, replies []byte) {
	if err := l.deliver(replies); err != nil {
		r.t.Fatal(err)
	}
	r.got = r.got[:0]
	l.mu.Lock()
	l.unnonced = 0
	l.mu.Unlock()
}
