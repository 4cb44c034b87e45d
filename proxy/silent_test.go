package proxy

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/proxytest"
)

// Existing flows are dropped by a middlebox that goes on acknowledging, while new ones work. A client that gives up and reconnects is
// served, as over a direct connection: it is not put on the lane that owes a reply to the session that it left.
func TestClientThatReconnectsIsServedAlthoughExistingFlowsAreSilent(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		r, err := proxytest.NewRelay("unix:"+redisServer(t), proxytest.Faults{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		h := m.start(t, r.Addr(), func(c *Config) { c.Backend.Credentials = credentials("", "") })
		var clients [6]*wire
		for i := range clients {
			clients[i] = h.dial()
			clients[i].do("+OK\r\n", "SET", "k", "v")
			clients[i].do(bulk("v"), "GET", "k")
		}
		r.Silence()
		for _, w := range clients {
			w.send(cmd("GET", "k"))
			eventually(t, "it is on its way", h.sessionOf(w).owes)
		}
		for _, w := range clients {
			s := h.sessionOf(w)
			w.Close() // it has waited long enough
			eventually(t, "that is seen", func() bool { return h.hasLeft(s) })
			w = h.dial()
			for range 10 {
				w.do(bulk("v"), "GET", "k")
			}
		}
	})
}

// Many clients that reconnect at once get one fresh lane together, in the place of the one that owes replies to what they left.
func TestManyWhoReconnectShareOneFreshLane(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	var clients [20]*wire
	for i := range clients {
		clients[i] = h.dial()
		clients[i].get("0")
	}
	stays := h.dial()
	stays.get("0")
	l := h.lane()
	head := b.hold("head")
	for i, w := range clients {
		w.send(cmd("GET", "head"))
		if i == 0 {
			<-head.reached
		}
		s := h.sessionOf(w)
		eventually(t, "it is on its way", s.owes)
		w.Close()
		eventually(t, "that is seen", func() bool { return h.hasLeft(s) })
	}
	stays.send(cmd("GET", "1")) // it rides the lane still, since nobody knows better
	eventually(t, "it waits", h.sessionOf(stays).owes)
	for range clients {
		h.dial().get("2")
	}
	if n := b.lanes(); n != 2 || len(h.openLanes()) != 1 || l.stateNow() != laneRetired {
		t.Errorf("%d lanes were dialled; open are %d", n, len(h.openLanes()))
	}
	head.release()
	stays.want(valueOf("1"))
}

// A lane that has answered what it owed to a client that has left carries everybody again.
func TestLaneThatHasAnsweredCarriesNewSessionsAgain(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	l := h.lane()
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	s := h.sessionOf(w)
	w.Close()
	eventually(t, "that is seen", func() bool { return h.hasLeft(s) })
	held.release()
	eventually(t, "it has answered", func() bool { _, idle := l.idleAt(); return idle })
	h.dial().get("1")
	if n := b.lanes(); n != 1 {
		t.Errorf("%d lanes were dialled", n)
	}
}

// A session that waits for a fresh lane takes the one that its client was kept from, if that has answered by then.
func TestSessionThatWaitsForALaneTakesOneThatHasAnswered(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	s := h.sessionOf(w)
	w.Close()
	eventually(t, "that is seen", func() bool { return h.hasLeft(s) })
	dial := b.hold("secret")
	w = h.dial()
	w.send(cmd("GET", "1"))
	<-dial.reached
	held.release()
	w.want(valueOf("1"))
	dial.release()
}

// hasLeft reports whether the end of the session's client has been noticed.
func (h *harness) hasLeft(s *session) bool {
	left := s.ended() || s.pump.limit.Load() != 0
	for _, l := range h.lanes.Live() {
		left = left || inside[clock.Atomic](l, "abandoned").Load() != 0
	}
	return left
}

// overdue lets so much time pass, and has the lanes looked at.
func (h *harness) overdue(d time.Duration) {
	h.t.Helper()
	h.ahead.Add(d)
	h.lanes.Watch(h.now())
}

// A lane that has owed a reply for too long takes no more work if the backend answers on a new connection. Nobody on it is closed.
func TestSilentLaneTakesNoMoreWork(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	waits, other := h.dial(), h.dial()
	waits.get("0")
	other.get("0")
	l := h.lane()
	held := b.hold("held")
	waits.send(cmd("GET", "held"))
	<-held.reached
	h.overdue(patience / 2)
	if l.stateNow() != laneOpen {
		t.Fatal("it takes no more work too soon")
	}
	h.overdue(patience)
	if l.stateNow() != laneRetired {
		t.Fatal("it takes work still")
	}
	other.get("1")
	if n := h.Stats().BackendRecoveries["silent"]; n != 1 {
		t.Errorf("counted %d times", n)
	}
	if !strings.Contains(h.logs.String(), `"address":"`+b.addr+`","silent_for":`) {
		t.Errorf("the log says %s", h.logs)
	}
	held.release()
	waits.want(valueOf("held"))
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// A lane stays while the backend answers nobody: then the lane is not to blame. The backend is asked once a second at most.
func TestLaneStaysWhileTheBackendIsSilent(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"says nothing": "", "is loading": "-LOADING Redis is loading the dataset in memory\r\n", "runs a script": "-BUSY Redis is busy running a script.\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) { c.Backend.ConnectTimeout = 100 * time.Millisecond })
			h.wantReady(true, "") // the prober's connection is there
			waits := h.dial()
			waits.get("0")
			l := h.lane()
			held := b.hold("held")
			waits.send(cmd("GET", "held"))
			<-held.reached
			var asked atomic.Int32
			b.onAccept(func(c *laneConn) {
				asked.Add(1)
				for {
					args, err := c.next()
					if err != nil {
						return
					}
					if args[0] == "PING" && answer != "" {
						c.w.WriteString(answer)
					} else if answer != "" {
						c.w.WriteString("+OK\r\n")
					}
				}
			})
			h.overdue(2 * patience)
			h.overdue(0)
			if asked.Load() != 1 || l.stateNow() != laneOpen {
				t.Errorf("asked %d times; the lane is in state %d", asked.Load(), l.stateNow())
			}
			h.overdue(2 * time.Second)
			if asked.Load() != 2 || l.stateNow() != laneOpen {
				t.Errorf("asked %d times after two seconds; the lane is in state %d", asked.Load(), l.stateNow())
			}
			held.release()
			waits.want(valueOf("held"))
		})
	}
}

// Commands whose work has no bound may take longer, and a big reply that is still arriving is no silence.
func TestLaneThatIsNotSilentStays(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	h.lane().retire()
	held := b.hold("unbounded")
	w.send(cmd("HGETALL", "unbounded"))
	<-held.reached
	unbounded := h.lane()
	h.overdue(5 * patience)
	if unbounded.stateNow() != laneOpen {
		t.Error("a lane for unbounded commands has no more patience than others")
	}
	h.overdue(6 * patience)
	if unbounded.stateNow() != laneRetired {
		t.Error("its patience has no end")
	}
	held.say("*0\r\n")
	w.want("*0\r\n")

	slow := h.dialAs("another")
	slow.get("0")
	l := h.lane()
	held, more := b.hold("arriving"), make(chan struct{})
	slow.send(cmd("GET", "arriving"))
	<-held.reached
	held.reply <- func(c *laneConn) string {
		<-more
		c.w.WriteString("$10\r\nhalf ")
		c.w.Flush()
		<-more
		return "whole\r\n"
	}
	h.ahead.Add(2 * patience)
	more <- struct{}{}
	slow.want("$10\r\nhalf ")
	h.overdue(0)
	if l.stateNow() != laneOpen {
		t.Error("a lane on which a reply is arriving was taken for silent")
	}
	close(more)
	slow.want("whole\r\n")
}

// A silent lane ends with the last of the sessions that wait for it.
func TestSilentLaneEndsWithTheSessionsThatWaitForIt(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.eofTimeout = time.Millisecond })
	w := h.dial()
	w.get("0")
	l := h.lane()
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	h.overdue(2 * patience)
	h.overdue(2 * patience)
	if l.stateNow() != laneRetired || len(h.lanes.Live()) != 1 {
		t.Fatal("it did not wait for the session")
	}
	s := h.sessionOf(w)
	w.Close()
	<-s.done
	eventually(t, "the lane ends", func() bool {
		h.lanes.Watch(h.now())
		return len(h.lanes.Live()) == 0
	})
	held.release()
}

// CLIENT PAUSE .. WRITE stops writes alone: a read does not wait on the lane for a write of another session, whether it was sent before
// that was noticed or after.
func TestPausedWritesDoNotStopReads(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		socket := redisServer(t)
		control := dialPlain(t, socket)
		h := m.start(t, socket, func(c *Config) {
			c.Backend.Credentials, c.Backend.Lanes = credentials("", ""), 1
			c.laneHeld, c.watchInterval, c.askInterval = 10*time.Millisecond, 5*time.Millisecond, 10*time.Millisecond
		})
		writer, reader, late := h.dial(), h.dial(), h.dial()
		for _, w := range []*wire{writer, reader, late} {
			w.do("+OK\r\n", "SET", "k", "v")
			w.do(bulk("v"), "GET", "k")
		}
		control.do("+OK\r\n", "CLIENT", "PAUSE", "3600000", "WRITE")
		writer.send(cmd("SET", "k", "new"))
		s := h.sessionOf(writer)
		eventually(t, "the write is on its way", s.owes)
		reader.do(bulk("v"), "GET", "k")
		for range 100 {
			reader.do(bulk("v"), "GET", "k")
			late.send(cmd("GET", "k") + cmd("GET", "k"))
			late.want(bulk("v") + bulk("v"))
		}
		control.do("+OK\r\n", "CLIENT", "UNPAUSE")
		writer.want("+OK\r\n")
		for _, w := range []*wire{writer, reader, late} {
			w.do(bulk("new"), "GET", "k")
		}
		if n := len(h.Stats().SessionsClosed); n != 0 {
			t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
		}
	})
}

// The reply to a command that was sent again over the own connection comes on the lane too, at last. Nobody gets it.
func TestReplyToWhatWasSentAgainIsDropped(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"it comes": false, "the lane is lost first": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) { c.laneHeld, c.askInterval = time.Second, 1 })
			first, behind, pair := h.dial(), h.dial(), h.dial()
			for _, w := range []*wire{first, behind, pair} {
				w.get("0")
			}
			l := h.lane()
			head := b.hold("head")
			first.send(cmd("GET", "head"))
			<-head.reached
			behind.send(cmd("GET", "behind"))
			eventually(t, "it is behind the other", func() bool { return l.inFlight() == 2 })
			pair.send(cmd("GET", "one") + cmd("GET", "two"))
			eventually(t, "a pipeline is behind them", func() bool { return l.inFlight() == 4 })
			h.overdue(2 * time.Second)
			behind.want(valueOf("behind"))
			h.pass(stayInterval)
			next := b.hold("next")
			behind.send(cmd("GET", "next"))
			<-next.reached
			if lost {
				head.reply <- func(c *laneConn) string { c.reset(); return "" }
				first.want(valueOf("head")) // sent again, now that the lane is lost
				pair.endsUnanswered()
			} else {
				head.release()
				first.want(valueOf("head"))
				pair.want(valueOf("one") + valueOf("two"))
			}
			next.release()
			behind.want(valueOf("next"))
			behind.get("last")
			if n := h.Stats().BackendRecoveries["held"]; n != 1 {
				t.Errorf("counted %d times", n)
			}
			closed := h.Stats().SessionsClosed
			if lost {
				delete(closed, string(closeBackendError)) // the pipeline's session
			}
			if len(closed) != 0 {
				t.Errorf("sessions closed: %v", closed)
			}
		})
	}
}

// behindHeld is a session with a read on a lane whose oldest command, the first one's, keeps it waiting: it is asked to send the read again
// over its own connection. From then on rule answers AUTH.
func behindHeld(t *testing.T, rule laneRule) (h *harness, b *laneBackend, head *laneHold, first, behind *wire) {
	t.Helper()
	b = newLaneBackend(t)
	h = b.start(func(c *Config) { c.laneHeld, c.askInterval = time.Second, 1 })
	first, behind = h.dial(), h.dial()
	first.get("0")
	behind.get("0")
	head = b.hold("head")
	first.send(cmd("GET", "head"))
	<-head.reached
	behind.send(cmd("GET", "behind"))
	eventually(t, "it is behind the other", func() bool { return h.lane().inFlight() == 2 })
	var asked atomic.Bool
	b.on(func(c *laneConn, args []string) (string, bool) {
		switch {
		case args[0] == "PING":
			asked.Store(true)
		case args[0] == "AUTH" && asked.Load():
			return rule(c, args)
		}
		return "", false
	})
	h.overdue(2 * time.Second)
	return h, b, head, first, behind
}

// A read that is to be sent again, and finds no connection, gets the reply that its lane brings at last, or is sent again when that is lost.
func TestReadThatCannotBeSentAgainWaitsForItsLane(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"it comes": false, "the lane is lost first": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, b, head, first, behind := behindHeld(t, func(*laneConn, []string) (string, bool) { return "-WRONGPASS on purpose\r\n", true })
			s := h.sessionOf(behind)
			eventually(t, "it finds no connection", func() bool {
				_, err := s.upstreamNow()
				s.queue.mu.Lock()
				defer s.queue.mu.Unlock()
				return err != nil && s.queue.out.resend == nil
			})
			if lost {
				b.on(nil)
				head.reply <- func(c *laneConn) string { c.reset(); return "" }
			} else {
				head.release()
			}
			first.want(valueOf("head"))
			behind.want(valueOf("behind"))
			behind.get("last")
			if n := b.count("GET", "behind"); n != 1 || len(h.Stats().SessionsClosed) != 0 { // a lost lane has not read it
				t.Errorf("asked %d times; sessions closed: %v", n, h.Stats().SessionsClosed)
			}
		})
	}
}

// The lane answers a read while the session still dials the connection over which it would send it again.
func TestReadIsNotSentAgainOnceItsLaneHasAnswered(t *testing.T) {
	t.Parallel()
	dials, goOn := make(chan struct{}, 1), make(chan struct{})
	h, b, head, first, behind := behindHeld(t, func(c *laneConn, _ []string) (string, bool) {
		select {
		case dials <- struct{}{}:
		default:
		}
		select {
		case <-goOn:
		case <-c.b.done:
		}
		return "", false
	})
	<-dials
	head.release()
	first.want(valueOf("head"))
	behind.want(valueOf("behind"))
	close(goOn)
	behind.get("last")
	if n := b.count("GET", "behind"); n != 1 || len(h.Stats().SessionsClosed) != 0 {
		t.Errorf("asked %d times; sessions closed: %v", n, h.Stats().SessionsClosed)
	}
}

// A client that leaves while its session waits for a lane that is silent, before it may use its own connection, does not keep the session.
func TestSessionWhoseClientHasLeftDoesNotWaitForASilentLane(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]string{"an own command": cmd("INFO"), "QUIT": cmd("QUIT"), "RESET": cmd("RESET")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) { c.eofTimeout = 50 * time.Millisecond })
			w := h.dial()
			w.get("0")
			head := b.hold("head")
			w.send(cmd("GET", "head"))
			<-head.reached
			before := h.Stats().BytesIn
			w.send(next)
			eventually(t, "it has come", func() bool { return h.Stats().BytesIn == before+uint64(len(next)) })
			w.Close()
			eventually(t, "the session ends", func() bool { return h.Stats().SessionsClosed[string(closeClient)] == 1 })
		})
	}
}
