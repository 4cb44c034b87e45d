package proxy

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"
)

// merging is a lane whose backend holds the first of three commands; the others wait for its reply.
func merging(t *testing.T, conf *tls.Config) (b *laneBackend, h *harness, clients []*wire, held *laneHold) {
	t.Helper()
	b = newLaneBackendWith(t, reserve(t, "127.0.0.1")[0], conf)
	h = b.start(func(c *Config) {
		c.mergeTrip = time.Minute
		if conf != nil {
			c.Backend.TLS = testPKI().clientConfig
		}
	})
	for i := range 3 {
		w := h.dial()
		w.get(fmt.Sprint(i))
		clients = append(clients, w)
	}
	l := h.lane()
	l.nonces(false)
	held = b.hold("held")
	clients[0].send(cmd("GET", "held"))
	<-held.reached
	eventually(t, "who asked has written", func() bool { _, free := l.unwritten(); return free })
	clients[1].send(cmd("GET", "b"))
	clients[2].send(strings.Repeat(cmd("GET", "c"), 3))
	eventually(t, "all are in flight", func() bool { return l.inFlight() == 5 })
	if w, waits := l.unwritten(); !waits || w != 4*len(cmd("GET", "b")) {
		t.Fatalf("%d bytes wait for the reply", w)
	}
	return b, h, clients, held
}

// unwritten is how much waits, and whether nobody writes.
func (l *lane) unwritten() (n int, free bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.out), !l.token
}

func TestWhatIsAskedWhileTheBackendWorksGoesOutBehindItsReply(t *testing.T) {
	t.Parallel()
	for name, conf := range map[string]*tls.Config{"plain": nil, "TLS": testPKI().serverConfig()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, h, clients, held := merging(t, conf)
			if n := b.count("GET", "b") + b.count("GET", "c"); n != 0 {
				t.Errorf("%d of them went out before", n)
			}
			held.release()
			clients[0].want(valueOf("held"))
			clients[1].want(valueOf("b"))
			clients[2].want(strings.Repeat(valueOf("c"), 3))
			for i, w := range clients {
				w.get(fmt.Sprint("again ", i))
			}
			if b.lanes() != 1 {
				t.Errorf("%d lanes", b.lanes())
			}
			h.wantOnLanes("GET", 3+5+3)
		})
	}
}

// What waits has surely not run when the lane is lost, and is answered so.
func TestWhatWaitsForAReplyIsNotSentWhereTheLaneIsLost(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]func(*laneConn) string{"closed": waysToGo["closed"], "reset": waysToGo["reset"]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _, clients, held := merging(t, nil)
			held.reply <- way
			clients[0].want(sayLost)
			clients[1].want(sayUnavailable)
			clients[2].want(strings.Repeat(sayUnavailable, 3))
			for _, w := range clients {
				w.goesOn(valueOf("x"), "GET", "x")
			}
			if n := b.count("GET", "b") + b.count("GET", "c"); n != 0 {
				t.Errorf("%d of them went out", n)
			}
		})
	}
}

// A reply before a command is written is none to it.
func TestReplyToWhatWaitsTakesTheLaneAlong(t *testing.T) {
	t.Parallel()
	_, h, clients, held := merging(t, nil)
	held.say(valueOf("held") + "+foreign\r\n")
	clients[0].want(valueOf("held"))
	clients[1].endsUnanswered()
	clients[2].endsUnanswered()
	h.wantClosed(closeLane, 2)
}

// A lane that takes no new work answers what waits.
func TestRetiredLaneAnswersWhatWaits(t *testing.T) {
	t.Parallel()
	b, h, clients, held := merging(t, nil)
	l := h.lane()
	l.retire()
	held.release()
	clients[0].want(valueOf("held"))
	clients[1].want(valueOf("b"))
	clients[2].want(strings.Repeat(valueOf("c"), 3))
	eventually(t, "it closes", func() bool { return l.stateNow() == laneClosed })
	clients[1].get("on the next")
	if b.lanes() != 2 {
		t.Errorf("%d lanes", b.lanes())
	}
}

// Much that waits goes out all the same, and so does what is asked of a backend that is far away.
func TestWhatDoesNotWaitForAReply(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		trip time.Duration
		ask  string
		left int // may wait
	}{
		"much":     {time.Minute, strings.Repeat(cmd("SET", "k", strings.Repeat("x", 1000)), maxMerged/1000+2), maxMerged},
		"far away": {time.Nanosecond, cmd("SET", "k", "x"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) { c.mergeTrip = tt.trip })
			a, other := h.dial(), h.dial()
			a.get("0")
			other.get("1")
			held := b.hold("held")
			a.send(cmd("GET", "held"))
			<-held.reached
			l := h.lane()
			n := strings.Count(tt.ask, "SET")
			for range n {
				other.send(tt.ask[:len(tt.ask)/n]) // one at a time: a batch goes out whole
			}
			eventually(t, "they go out", func() bool { w, _ := l.unwritten(); return l.inFlight() == 1+n && w <= tt.left })
			held.release()
			a.want(valueOf("held"))
			other.want(strings.Repeat("+OK\r\n", n))
		})
	}
}

// One answer in a busy moment does not make a near backend a far one.
func TestTripIsTheBestOfLate(t *testing.T) {
	t.Parallel()
	l := new(lane)
	for _, tt := range []struct{ trip, want int64 }{{50, 50}, {30, 30}, {30 + 1600, 130}, {40, 40}, {40, 40}} {
		l.asked = 1000
		l.tripLocked(1000 + tt.trip)
		if l.trip != tt.want || l.asked != 0 {
			t.Errorf("a trip of %d makes it %d, want %d", tt.trip, l.trip, tt.want)
		}
	}
	l.tripLocked(5000) // nothing was asked
	if l.trip != 40 {
		t.Errorf("a reply to nothing makes it %d", l.trip)
	}
}
