package proxy

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
)

// The way of a command through its session and a lane, and of its reply back into the session, with the goroutines of the lane:
// a backend answers each batch at once. Nobody writes to the client.
func TestLaneAllocatesNothingForACommand(t *testing.T) {
	for _, n := range []int{1, 16, 100} {
		batch, replies := []byte(strings.Repeat(cmd("GET", "key:000001"), n)), []byte(strings.Repeat(bulk("value"), n))
		srv, err := New(Config{
			TLS: testPKI().serverConfig(), Backend: BackendConfig{Target: backendAt(""), Shared: true}, Log: zerolog.Nop(),
			clock: func() clock.Instant { return 0 }, // no nonce is due for its time
		})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", fakeBackend(t, func(c net.Conn) {
			for b := make([]byte, len(batch)); ; {
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				c.Write(replies)
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		s, l := ridesOneLane(t, srv, conn)
		mu, unnonced := inside[sync.Mutex](l.Lane, "mu"), inside[int](l.Lane, "unnonced")
		ride := func() {
			mu.Lock()
			*unnonced = 0 // nor for the number of commands
			mu.Unlock()
			s.ride(t, l, batch, n, len(replies))
		}
		for range 10 {
			ride() // takes its buffers
		}
		if got := testing.AllocsPerRun(200, ride); got != 0 {
			t.Errorf("%d commands: %v allocations", n, got)
		}
		eventually(t, "nothing is in flight", func() bool { return l.inFlight() == 0 && l.now("slots.n") == 0 && s.commandsOnLanes() == 0 })
		if s.queue.owed != 0 {
			t.Errorf("%d owed", s.queue.owed)
		}
		srv.Close()
	}
}

// ride takes a batch of n commands to the lane, and want bytes of replies back. The client takes the replies at once.
func (s *session) ride(t testing.TB, l aLane, batch []byte, n, want int) {
	c, q := &s.client, &s.queue
	c.out.Bytes, c.out.Replies, c.frames, c.pend = batch, n, n, append(c.pend[:0], slot{n: n})
	s.mustFitLane()
	if got := l.Submit(&s.seat, &c.out, s.server.now()); got != submitted {
		t.Fatalf("submission %v", got)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waitLocked(func() bool { return q.owed == 0 })
	if q.out.size != want {
		t.Fatalf("%d bytes of replies, want %d", q.out.size, want)
	}
	for b, ok := q.out.take(); ok; b, ok = q.out.take() {
		q.out.unsent -= b.n
		b.free(s.account())
	}
}
