package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// settled is a client whose session has been answered on a lane, in a database, protocol and name of its own.
func settled(h *harness) *wire {
	h.t.Helper()
	w := h.dial()
	if !w.settles(h) {
		h.t.Fatal("an error where there is none to come")
	}
	return w
}

// settledAtLast is settled where a command may wait too long for its connection: then another client tries.
func settledAtLast(h *harness) *wire {
	h.t.Helper()
	for range 1000 {
		w := h.dial()
		if w.settles(h) {
			return w
		}
		w.Close()
	}
	h.t.Fatal("nobody is settled")
	return nil
}

// settles does what settled does, and returns false at the first error.
func (w *wire) settles(h *harness) bool {
	for _, args := range [][]string{{"HELLO", "3"}, {"SELECT", "5"}, {"CLIENT", "SETNAME", "me"}, {"HGET", "h", "f"}} {
		if args[0] == "HGET" {
			h.pass(stayInterval)
		}
		w.send(cmd(args...))
		switch first, err := w.r.Peek(1); {
		case err != nil || first[0] == '-':
			return false
		case args[0] == "HELLO":
			w.want("%1\r\n$5\r\nproto\r\n:3\r\n")
		case args[0] == "HGET":
			w.want(bulk("5 3"))
		default:
			w.want("+OK\r\n")
		}
	}
	return true
}

// goesOn sends a command until the session has recovered: what the proxy reads before it has found the client's socket
// empty is answered as not sent.
func (w *wire) goesOn(reply string, args ...string) {
	w.t.Helper()
	for range 1000 {
		w.send(cmd(args...))
		if first, err := w.r.Peek(1); err != nil {
			w.t.Fatal(err)
		} else if first[0] != '-' {
			w.want(reply)
			return
		}
		w.want(sayUnavailable)
	}
	w.t.Fatal("it never goes on")
}

var waysToGo = map[string]func(*laneConn) string{
	"reset":            func(c *laneConn) string { c.reset(); return "" },
	"closed":           func(c *laneConn) string { c.end(); return "" },
	"closed at half":   func(c *laneConn) string { c.tcp.CloseRead(); c.end(); return "" },
	"closed unread":    func(c *laneConn) string { c.Close(); return "" },
	"behind a reply":   func(c *laneConn) string { c.w.WriteString(bulk("5 3")); c.end(); return "" },
	"reset after some": func(c *laneConn) string { c.w.WriteString(bulk("5 3")); c.reset(); return "" },
}

// Whoever has commands in flight on a lane that is lost is closed, as over a direct connection. A read that was alone in flight
// is sent again, and costs nothing. Nor do sessions that wait for nothing notice.
func TestLaneThatIsLostClosesWhoeverHasCommandsOnIt(t *testing.T) {
	t.Parallel()
	for name, way := range waysToGo {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			reads, pipelines, writes, runs, idle := settled(h), settled(h), settled(h), settled(h), settled(h)
			l := h.lane()
			held := b.hold("held")
			reads.send(cmd("HGET", "h", "held"))
			<-held.reached
			pipelines.send(strings.Repeat(cmd("HGET", "h", "f"), 10))
			writes.send(cmd("SET", "k", "v"))
			runs.send(cmd("MULTI") + cmd("GET", "k") + cmd("EXEC"))
			eventually(t, "all are in flight and written", func() bool { return l.written() == 15 })
			held.reply <- way
			reads.want(bulk("5 3"))
			for _, w := range []*wire{pipelines, writes, runs} {
				w.endsUnanswered()
			}
			h.wantClosed(closeBackendError, 3)
			h.pass(stayInterval)
			for _, w := range []*wire{reads, idle} {
				w.do(bulk("5 3"), "HGET", "h", "f")
				w.do(bulk("info"), "INFO")
			}
			if n := b.count("SET", ""); n > 1 {
				t.Errorf("SET was sent %d times", n)
			}
		})
	}
}

// A read is sent again once: where its second connection is lost too, its session ends. Where there is none, it gets an error.
func TestReadIsSentAgainOnce(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := settled(h)
	w.do(bulk("info"), "INFO") // over a connection that is older than the loss
	h.pass(stayInterval)
	b.on(func(c *laneConn, args []string) (string, bool) {
		if args[0] != "GET" {
			return "", false
		}
		c.reset()
		return "", true
	})
	w.send(cmd("GET", "k"))
	w.endsUnanswered()
	eventually(t, "the session has ended", func() bool { return h.live() == 0 })
	if n := b.count("GET", "k"); n != 2 {
		t.Errorf("it was sent %d times", n)
	}
}

// Dragonfly says that a command of it threw before it closes the connection, also behind the command's reply: whose it is
// cannot be known, so nobody gets it.
func TestInternalErrorOfTheBackendReachesNobody(t *testing.T) {
	t.Parallel()
	const beginning, sayInternal = "-ERR Internal Er", "-ERR Internal Error\r\n"
	for name, tt := range map[string]struct {
		reply, first string
		pieces       bool // which ends the session that has one of them
	}{
		"in the place of a reply":  {reply: sayInternal, first: bulk("5 3")},
		"behind a reply":           {reply: bulk("5 3") + sayInternal, first: bulk("5 3")},
		"in the middle of a run":   {reply: bulk("5 3") + bulk("5 3") + bulk("5 3") + sayInternal, first: bulk("5 3")},
		"in pieces behind a reply": {reply: bulk("5 3") + sayInternal, first: bulk("5 3"), pieces: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			a, other := settled(h), settled(h)
			l := h.lane()
			l.nonces(false) // what the test says in the backend's place answers none, and on a busy machine one may be due
			held := b.hold("held")
			a.send(cmd("HGET", "h", "held"))
			<-held.reached
			other.send(strings.Repeat(cmd("HGET", "h", "f"), 10))
			eventually(t, "all are in flight and written", func() bool { return l.written() == 11 })
			gone := make(chan struct{})
			held.reply <- func(c *laneConn) string {
				cut := len(tt.reply)
				if tt.pieces {
					cut -= len(sayInternal) - len(beginning)
				}
				c.w.WriteString(tt.reply[:cut])
				c.w.Flush()
				select {
				case <-gone:
				case <-b.done:
				}
				c.w.WriteString(tt.reply[cut:])
				c.end()
				return ""
			}
			a.want(tt.first)
			if tt.pieces {
				other.want(beginning)
			}
			close(gone)
			if tt.pieces {
				if got := beginning + other.wantEnd(); len(got) >= len(sayInternal) || got != sayInternal[:len(got)] {
					t.Errorf("the other got %q", got)
				}
				h.wantClosed(closeLane, 1)
			} else {
				had := max(0, strings.Count(tt.reply, bulk("5 3"))-1)
				if got := other.wantEnd(); got != strings.Repeat(bulk("5 3"), had) {
					t.Errorf("the other got %q", got)
				}
				h.wantClosed(closeBackendError, 1)
			}
			a.do(bulk("5 3"), "HGET", "h", "f")
		})
	}
}

// What the client had sent by then is not run after the loss: like on a connection of its own, a prefix of it was run.
func TestWhatWasSentBeforeALossIsNotRunBehindIt(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w, other := settled(h), settled(h)
	const n = 1400 // more than a session may have in flight, and not much more: it is all there when the lane is lost
	held := b.hold("held")
	w.send(cmd("HGET", "h", "held"))
	<-held.reached
	l := h.lane()
	w.send(strings.Repeat(cmd("GET", "k"), n))
	s := h.sessionOf(w)
	eventually(t, "its share is in flight, and passed to a write", func() bool {
		waits, _ := l.unwritten()
		return s.commandsOnLanes() > laneCommands/laneShare-maxBatch && waits == 0
	})
	sent := s.commandsOnLanes()
	held.reply <- waysToGo["reset"]
	w.endsUnanswered()
	h.wantClosed(closeBackendError, 1)
	other.get("afterwards")
	if got := b.count("GET", "k"); got > sent {
		t.Errorf("%d were run, of %d that may have been", got, sent)
	}
}

// A read is sent again at once, even where the next lane has no room for what is behind it.
func TestReadIsSentAgainWhereNoLaneHasRoom(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	l := h.lane()
	full := l.another(t)
	full.occupy(laneCommands)
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	l.retire()
	s := h.sessionOf(w)
	eventually(t, "it waits for its reply", func() bool { return s.holds.Load() == holdsNothing })
	w.send(cmd("GET", "behind"))
	eventually(t, "the session waits", func() bool { return s.holds.Load() == holdsCommands })
	held.reply <- waysToGo["reset"]
	w.want(valueOf("held"))
	full.occupy(-laneCommands)
	w.want(valueOf("behind"))
	w.get("afterwards")
}

// A direct connection would have ended with the backend, whatever was still to be sent over it.
func TestLossEndsWhoseCommandsWerePassedToNoWrite(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	a, second, third := settled(h), settled(h), settled(h)
	_, stuck := h.lane().stick(t)
	held := b.hold("held")
	a.send(cmd("HGET", "h", "held")) // so that the next write is the writer's
	<-held.reached
	stuck.armed.Store(true)
	second.send(cmd("GET", "x") + cmd("GET", "x"))
	<-stuck.writing
	const n = 1400 // more than a session may have in flight, and not much more: it is all there when the lane is lost
	third.send(strings.Repeat(cmd("GET", "x"), n))
	s := h.sessionOf(third)
	eventually(t, "its share is in flight", func() bool {
		return s.commandsOnLanes() > laneCommands/laneShare-maxBatch && s.holds.Load() == holdsCommands
	})
	close(stuck.fail)
	held.reply <- waysToGo["reset"]
	a.want(bulk("5 3"))
	second.endsUnanswered()
	third.endsUnanswered()
	a.do(valueOf("next"), "GET", "next")
	h.wantClosed(closeBackendError, 2)
	if b.count("GET", "x") != 0 {
		t.Error("what was not written was run")
	}
}

// Nobody else waits for what the backend may still say on a lane whose write has failed.
func TestLaneWhoseWriteFailedIsChosenByNobody(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	a, second, third := settled(h), settled(h), settled(h)
	l, stuck := h.lane().stick(t)
	held := b.hold("held")
	a.send(cmd("HGET", "h", "held")) // so that the next write is the writer's
	<-held.reached
	stuck.armed.Store(true)
	second.send(cmd("GET", "x"))
	<-stuck.writing
	close(stuck.fail)
	eventually(t, "it has failed", func() bool { return l.stateNow() >= laneFailed })
	third.get("y")
	select {
	case <-l.closed():
		t.Error("who came waited for the end of the lane")
	default:
	}
	held.release()
	a.want(bulk("5 3"))
	l.up().Close()
	second.want(valueOf("x"))
}

func TestHalfAReplyEndsItsSessionAlone(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]func(*laneConn) string{"closed": waysToGo["closed"], "reset": waysToGo["reset"]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			a, other := settled(h), settled(h)
			l := h.lane()
			held := b.hold("held")
			a.send(cmd("GET", "held"))
			<-held.reached
			other.send(cmd("GET", "x"))
			eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
			gone := make(chan struct{})
			held.reply <- func(c *laneConn) string {
				c.w.WriteString("$10\r\nhalf")
				c.w.Flush()
				select {
				case <-gone:
				case <-b.done:
				}
				return way(c)
			}
			a.want("$10\r\nhalf")
			close(gone)
			a.endsUnanswered()
			other.want(valueOf("x"))
			other.get("y")
			h.wantClosed(closeLane, 1)
		})
	}
}

// Who was never answered may be no client at all to the backend: it is closed, as it would be without the proxy.
func TestLossEndsWhoWasNeverAnswered(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	settled := h.dial()
	settled.get("0")
	w := h.dial()
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	held.reply <- waysToGo["reset"]
	w.endsUnanswered()
	h.wantClosed(closeBackendError, 1)
	settled.get("1")
}

// A session whose state an error of ours would leave in doubt ends.
func TestLossEndsWhoCannotGoOn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before [][]string // each answered
		last   []string   // in flight on the own connection when that is lost; nil: nothing is
	}{
		"WATCH":                    {before: [][]string{{"WATCH", "k"}}},
		"WATCH and a read":         {before: [][]string{{"WATCH", "k"}}, last: []string{"GET", "held"}},
		"MULTI":                    {before: [][]string{{"MULTI"}}},
		"MULTI and a command":      {before: [][]string{{"MULTI"}}, last: []string{"GET", "held"}},
		"MULTI and EXEC":           {before: [][]string{{"MULTI"}, {"GET", "k"}}, last: []string{"EXEC"}},
		"SELECT":                   {last: []string{"SELECT", "held"}},
		"HELLO":                    {last: []string{"HELLO", "2", "SETNAME", "held"}},
		"CLIENT SETNAME":           {last: []string{"CLIENT", "SETNAME", "held"}},
		"an unknown command":       {last: []string{"NOSUCH", "held"}},
		"an unknown script":        {last: []string{"EVALSHA", "held"}},
		"a script that may select": {before: [][]string{{"EVAL", "return redis.call(ARGV[1])", "0"}}},
		"an unknown one that ran":  {before: [][]string{{"CLIENT", "ID"}}},
		"a script that ran":        {before: [][]string{{"EVAL", "return 1", "0"}}},
		"a blocking command":       {last: []string{"BLPOP", "q", "held"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			b.on(func(c *laneConn, args []string) (string, bool) { return "+OK\r\n", args[0] == "EVAL" })
			h := b.start(nil)
			w, other := settled(h), settled(h)
			for _, args := range tt.before {
				w.send(cmd(args...))
				line, err := w.r.ReadString('\n')
				if err != nil || line[0] != '+' {
					t.Fatalf("%q: %q %v", args, line, err)
				}
			}
			s := h.sessionOf(w)
			if tt.last != nil {
				held := b.hold(tt.last[len(tt.last)-1])
				w.send(cmd(tt.last...))
				<-held.reached
				held.reply <- waysToGo["reset"]
			} else {
				up, _ := s.upstreamNow()
				up.Socket.Abort()
			}
			w.endsUnanswered()
			eventually(t, "it is closed for the backend", func() bool {
				return h.closedFor(closeBackend)+h.closedFor(closeBackendError)+h.closedFor(closeClient) == 1
			})
			other.get("x")
		})
	}
}

func TestOwnConnectionThatIsLostEndsWhoeverWaitsForIt(t *testing.T) {
	t.Parallel()
	for name, way := range waysToGo {
		if strings.Contains(name, "after") || strings.Contains(name, "behind") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w := settled(h)
			held := b.hold("held")
			w.send(cmd("INFO", "held") + cmd("GET", "a") + cmd("INFO", "b"))
			<-held.reached
			held.reply <- way
			w.endsUnanswered()
			eventually(t, "it is closed for the backend", func() bool { return h.closedFor(closeBackend)+h.closedFor(closeBackendError) == 1 })
		})
	}
	t.Run("while idle", func(t *testing.T) {
		t.Parallel()
		b := newLaneBackend(t)
		h := b.start(nil)
		w := settled(h)
		w.do(bulk("info"), "INFO")
		s := h.sessionOf(w)
		up, _ := s.upstreamNow()
		up.Socket.Abort()
		eventually(t, "it is gone", func() bool { return !s.hasOwn() })
		w.do(bulk("info"), "INFO")
		if n := len(h.Stats().SessionsClosed); n != 0 {
			t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
		}
	})
}

// What a lane owes comes from there, whatever the own connection says meanwhile.
func TestOwnConnectionCostsNothingThatALaneOwes(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{"lost": "", "unasked": "-ERR unasked\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w, other := settled(h), settled(h)
			onOwn, onLane, later := b.hold("on own"), b.hold("on lane"), make(chan struct{})
			w.send(cmd("INFO", "on own"))
			<-onOwn.reached
			onOwn.reply <- func(c *laneConn) string {
				c.w.WriteString(bulk("info"))
				c.w.Flush()
				<-later
				if says == "" {
					c.reset()
				}
				return says
			}
			w.want(bulk("info"))
			h.pass(stayInterval)
			w.send(cmd("GET", "on lane") + cmd("GET", "x"))
			<-onLane.reached
			s := h.sessionOf(w)
			close(later)
			if says == "" {
				eventually(t, "it is gone", func() bool { return !s.hasOwn() })
				onLane.release()
				w.want(valueOf("on lane") + valueOf("x"))
				w.get("y")
				w.do(bulk("info"), "INFO")
				h.pass(stayInterval)
				w.get("z")
			} else if got := w.wantEnd(); got != says {
				t.Errorf("got %q", got)
			} else {
				onLane.release()
			}
			other.get("y")
		})
	}
}

// What was sent behind a write that is lost does not run, and what was sent behind a read runs after it.
func TestStateCommandBehindALoss(t *testing.T) {
	t.Parallel()
	for first, again := range map[string]bool{"SET": false, "GET": true} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w := settled(h)
			held := b.hold("held")
			w.send(cmd(first, "held"))
			<-held.reached
			w.send(cmd("SELECT", "1") + cmd("GET", "behind"))
			s := h.sessionOf(w)
			eventually(t, "it was read", func() bool { return s.holds.Load() == holdsCommands })
			held.reply <- waysToGo["reset"]
			if again {
				w.want(valueOf("held") + "+OK\r\n" + valueOf("behind"))
				return
			}
			w.endsUnanswered()
			h.wantClosed(closeBackendError, 1)
			if b.count("GET", "behind") != 0 || b.count("SELECT", "1") != 0 {
				t.Error("it was run")
			}
		})
	}
}

// A state command that finds no backend is answered by an error, and the session ends: what follows must not run in another
// state.
func TestStateCommandThatCannotBeSentEndsTheSession(t *testing.T) {
	t.Parallel()
	b, h, w := unconnected(t)
	b.falls("is silent")
	w.send(cmd("SELECT", "1") + cmd("GET", "behind"))
	if got := w.wantEnd(); got != sayUnavailable+sayUnavailable {
		t.Errorf("got %q", got)
	}
	w.Close()
	h.wantClosed(closeUnavailable, 1)
}

func TestClientThatVanishesBehindABlockingCommandLosesNoElement(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(*wire){"FIN": func(w *wire) { w.Close() }, "RST": resetBy} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := dragonflyAt(t, proxytest.Options{RequirePass: "secret"})
			h := start(t, d.Addr(), func(c *Config) {
				share(c)
				c.Backend.Credentials, c.unavailableTimeout = credentials("", "secret"), patience
			})
			w, other := h.dial(), h.dial()
			w.do("+OK\r\n", "SET", "x", "1")
			w.send(cmd("BLPOP", "q", "0") + cmd("GET", "x"))
			eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
			vanish(w)
			eventually(t, "nobody waits", func() bool { return d.Blocked() == 0 })
			other.do(":1\r\n", "LPUSH", "q", "e")
			other.do(":1\r\n", "LLEN", "q")
			h.wantOnLanes("LLEN", 1)
		})
	}
}

// The reply to a client that is gone goes to nobody, and those behind it to their own.
func TestClientThatVanishesFromALaneDisturbsNobody(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(*wire){"FIN": func(w *wire) { w.Close() }, "RST": resetBy} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) { c.eofTimeout = 20 * time.Millisecond })
			gone, a, c := h.dial(), h.dial(), h.dial()
			for i, w := range []*wire{gone, a, c} {
				w.get(fmt.Sprint(i))
			}
			l := h.lane()
			l.nonces(false)
			held := b.hold("held")
			gone.send(cmd("GET", "held"))
			<-held.reached
			a.send(cmd("GET", "a"))
			eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
			vanish(gone)
			eventually(t, "its session has ended", func() bool { return h.live() == 2 })
			c.send(cmd("GET", "c") + cmd("GET", "d"))
			eventually(t, "all are in flight and written", func() bool { return l.written() == 4 })
			held.release()
			a.want(valueOf("a"))
			c.want(valueOf("c") + valueOf("d"))
			a.get("b")
			h.wantOnLanes("GET", 8)
			if b.lanes() != 1 {
				t.Errorf("%d lanes", b.lanes())
			}
		})
	}
}

// Half a push leaves the client in the middle of a frame: nothing else can follow it.
func TestOwnConnectionThatEndsInsideAPushEndsTheSession(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := settled(h)
	held := b.hold("x")
	w.send(cmd("INFO", "x"))
	<-held.reached
	held.reply <- func(c *laneConn) string {
		c.w.WriteString(bulk("info") + ">2\r\n+half\r\n")
		c.end()
		return ""
	}
	w.want(bulk("info") + ">2\r\n+half\r\n")
	w.endsUnanswered()
}
