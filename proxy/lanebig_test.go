package proxy

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// A session that asks for more than a lane is for has it, and uses its own connection for a while. The others get another
// lane meanwhile.
func TestBigReplyHasAnotherLaneOpened(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", maxLaneReply/2)
	for name, tt := range map[string]struct {
		head, rest string
		atOnce     bool // the head alone says so
	}{
		"a bulk says so":           {fmt.Sprintf("$%d\r\n", maxLaneReply+1), half + half + "x\r\n", true},
		"a bulk inside an array":   {fmt.Sprintf("*2\r\n:1\r\n$%d\r\n", maxLaneReply+1), half + half + "x\r\n", false},
		"it adds up":               {"*3\r\n" + bulk(half), bulk(half) + "$-1\r\n", false},
		"a bulk of what is let by": {fmt.Sprintf("$%d\r\n", maxLaneReply-100), half + half[100:] + "\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b, all := onOneOfLanes(t, 3, 2)
			w, behind, other := all[0], all[1], all[2]
			l := h.lane()
			held := b.hold("held")
			w.send(cmd("GET", "held"))
			<-held.reached
			if !tt.atOnce { // else see TestNobodyWaitsForWhoReadsABigValue
				behind.send(cmd("GET", "behind"))
				eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
			}
			looked := make(chan struct{})
			held.reply <- func(c *laneConn) string {
				c.w.WriteString(tt.head)
				c.w.Flush()
				select {
				case <-looked:
				case <-b.done:
				}
				return tt.rest
			}
			w.want(tt.head)
			if tt.atOnce {
				eventually(t, "another lane", func() bool { return len(h.openLanes()) == 2 })
				other.get("on another lane")
				if one := b.conn("GET", "held"); one < 0 || one == b.conn("GET", "on another lane") {
					t.Error("it waits behind the big reply")
				}
			} else if n := len(h.openLanes()); n != 1 {
				t.Errorf("%d lanes before its time", n)
			}
			close(looked)
			w.want(tt.rest)
			if !tt.atOnce {
				behind.want(valueOf("behind"))
			}
			lets := strings.Contains(name, "let by")
			if lets {
				w.get("on the lane still")
				if b.lanes() != 1 || l.stateNow() != laneOpen {
					t.Errorf("%d lanes, the first is in state %v", b.lanes(), l.stateNow())
				}
				return
			}
			eventually(t, "another lane", func() bool { return len(h.openLanes()) == 2 })
			before := h.Stats().CommandsLane["GET"]
			h.pass(ownAfterBig - laneIdle)
			w.get("on its own")
			if got := h.Stats().CommandsLane["GET"]; got != before {
				t.Error("it rode a lane")
			}
			h.pass(laneIdle)
			w.get("on a lane again")
			behind.get("on a lane all the time")
			h.wantOnLanes("GET", int(before)+2)
			if n := len(h.Stats().SessionsClosed); n != 0 {
				t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
			}
		})
	}
}

// A client that did not keep up uses its own connection for good, even where the replies that are still to come are big.
func TestBigReplyDoesNotBringASlowClientBack(t *testing.T) {
	t.Parallel()
	h, b, all := onOneLane(t, 1)
	w := all[0]
	s := h.sessionOf(w)
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	s.ownUntil.Store(forGood) // as Receive does
	big := bulk(strings.Repeat("x", maxLaneReply+1))
	held.say(big)
	w.wantLong(big)
	h.pass(ownAfterBig)
	before := h.Stats().CommandsLane["GET"]
	w.get("on its own")
	h.wantOnLanes("GET", int(before))
}

const slowValue = 900 << 10 // below what counts as big

// slowClient is a client whose kernel takes nothing until its gate is opened. Its session has ridden a lane, and the
// backend answers what it has asked for once it is released.
type slowClient struct {
	h         *harness
	b         *laneBackend
	w, behind *wire // behind is another client of the lane
	gate      *proxytest.Gate
	held      *laneHold
	replies   string
}

func newSlowClient(t *testing.T, n int, change func(*Config)) *slowClient {
	t.Helper()
	value := bulk(strings.Repeat("x", slowValue))
	c := &slowClient{b: newLaneBackend(t), replies: strings.Repeat(value, n)}
	c.b.on(func(_ *laneConn, args []string) (string, bool) { return value, args[len(args)-1] == "big" })
	h, all := c.b.startGated(change)
	c.h, c.w, c.behind = h, h.dial(), h.dial()
	c.w.get("0")
	c.behind.get("1")
	c.gate = all.of(c.w)
	c.gate.Stop()
	c.held = c.b.hold("big")
	c.w.send(strings.Repeat(cmd("GET", "big"), n))
	<-c.held.reached
	return c
}

func (s *session) unsent() int {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.out.unsent
}

// wantLong is want for what is too long to be shown.
func (w *wire) wantLong(replies string) {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(io.LimitReader(w.r, int64(len(replies))))
	if string(got) != replies {
		w.t.Fatalf("%d bytes (%v), or others than the %d wanted", len(got), err, len(replies))
	}
}

func TestClientThatDoesNotReadHoldsUpNobodyForLong(t *testing.T) {
	t.Parallel()
	c := newSlowClient(t, 4, func(c *Config) { c.SessionBuffer = 1 << 20 })
	h, w, behind := c.h, c.w, c.behind
	l, s := h.lane(), h.sessionOf(w)
	behind.send(cmd("GET", "behind"))
	eventually(t, "it is in flight", func() bool { return l.inFlight() == 5 })
	c.held.release()
	eventually(t, "the lane retires", func() bool { return l.stateNow() == laneRetired })
	h.dial().get("on another lane")
	eventually(t, "the slow client is closed", func() bool {
		h.ahead.Add(followTimeout)
		s.queue.notify()
		return h.closedFor(closeSlow) == 1
	})
	behind.want(valueOf("behind"))
	behind.get("goes on")
	w.Close()
	if h.live() != 2 {
		t.Errorf("%d sessions, want 2", h.live())
	}
}

// A client that takes what came for it just in time, again and again, is closed once those behind it have waited for
// followTimeout in all.
func TestClientThatReadsInTimeAgainAndAgainHoldsUpNobodyForLong(t *testing.T) {
	t.Parallel()
	c := newSlowClient(t, 8, func(c *Config) { c.SessionBuffer = 1 << 20 })
	h, w, behind := c.h, c.w, c.behind
	l, s := h.lane(), h.sessionOf(w)
	behind.send(cmd("GET", "behind"))
	eventually(t, "it is in flight", func() bool { return l.inFlight() == 9 })
	c.held.release()
	eventually(t, "the lane retires", func() bool { return l.stateNow() == laneRetired })
	w.SetReadDeadline(time.Now().Add(patience))
	took := 0
	for b := make([]byte, 16<<10); took < len(c.replies); {
		h.ahead.Add(followTimeout / 40) // a lane that waits goes on after some 32 records
		s.queue.notify()
		c.gate.Admit()
		n, err := w.r.Read(b)
		if took += n; err != nil {
			break
		}
	}
	if took == len(c.replies) {
		t.Error("it got all, and others waited")
	}
	h.wantClosed(closeSlow, 1)
	behind.want(valueOf("behind"))
}

func TestClientThatReadsSlowlyIsWaitedForWhileNobodyElseWaits(t *testing.T) {
	t.Parallel()
	c := newSlowClient(t, 10, func(c *Config) { c.SessionBuffer = 1 << 20 })
	h, w := c.h, c.w
	l, s := h.lane(), h.sessionOf(w)
	c.held.release()
	eventually(t, "the lane retires", func() bool { return l.stateNow() == laneRetired })
	for range 100 {
		h.ahead.Add(followTimeout)
		s.queue.notify()
		runtime.Gosched()
	}
	c.behind.get("on another lane")
	if n := s.unsent(); n > 3<<20 {
		t.Errorf("%d bytes are held for it", n)
	}
	c.gate.Open()
	w.wantLong(c.replies)
	w.get("goes on, on its own connection")
	if h.closedFor(closeSlow) != 0 {
		t.Error("it was closed")
	}
	<-l.closed()
}

func TestClientThatDoesNotReadIsGivenNothingMore(t *testing.T) {
	t.Parallel()
	c := newSlowClient(t, 3, func(c *Config) { c.SessionBuffer = 64 << 20 })
	h, b, w := c.h, c.b, c.w
	s := h.sessionOf(w)
	c.held.release()
	eventually(t, "all replies have come", func() bool { return !s.owes() })
	if n := s.unsent(); n < highUnsent {
		t.Fatalf("only %d bytes wait for the client", n)
	}
	before := h.Stats().BytesIn
	w.send(cmd("GET", "later"))
	eventually(t, "the command was read", func() bool { return h.Stats().BytesIn > before })
	c.behind.get("meanwhile")
	if b.count("GET", "later") != 0 {
		t.Error("it was passed on while the client takes nothing")
	}
	c.gate.Open()
	w.wantLong(c.replies)
	w.want(valueOf("later"))
	if b.lanes() != 1 {
		t.Errorf("%d lanes", b.lanes())
	}
	h.wantOnLanes("GET", 2+3+2)
}

func TestNonceFollowsEvery1024Commands(t *testing.T) {
	t.Parallel()
	h, b, all := onOneLane(t, 1)
	before := b.count("ECHO", "")
	const rounds = 4
	for i := range rounds {
		h.lane().nonces(false)
		commands, replies := pipelineOf(nonceCommands, fmt.Sprint(i))
		go io.WriteString(all[0], commands) // ends with the bytes, or the connection
		all[0].want(replies)
	}
	// What the lane owes is answered, so that the backend has counted it.
	eventually(t, "the lane is idle", func() bool { _, idle := h.lane().idleAt(); return idle })
	if got := b.count("ECHO", "") - before; got < rounds {
		t.Errorf("%d nonces in %d times %d commands", got, rounds, nonceCommands)
	}
	h.pass(nonceInterval)
	before = b.count("ECHO", "")
	all[0].get("x")
	eventually(t, "one for the time", func() bool { return b.count("ECHO", "") == before+1 })
	if h.closedFor(closeLane) != 0 || b.lanes() != 1 {
		t.Error("the lane was closed")
	}
}
