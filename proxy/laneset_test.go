package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

// What a lane is answered when it is opened: to the command name in its place.
var laneSetUps = []struct {
	name    string
	command string
	reply   string
	barred  time.Duration // for so long there are no lanes; 0: there are
	exec    bool          // lanes carry transactions
}{
	{name: "as it should", exec: true},
	{name: "AUTH is refused", command: "AUTH", reply: "-WRONGPASS no\r\n", barred: laneRetry},
	{name: "AUTH is refused to a lane's like", command: "AUTH", reply: "-ERR Client sent AUTH, but no password is set\r\n", barred: laneRetry},
	{name: "HELLO is refused", command: "HELLO", reply: "-NOPROTO no\r\n", barred: laneRetry},
	{name: "SELECT is refused", command: "SELECT", reply: "-ERR DB index is out of range\r\n", barred: laneRetry},
	{name: "ECHO is refused", command: "ECHO", reply: "-NOPERM no\r\n", barred: laneRetry},
	{name: "another nonce", command: "ECHO", reply: wrongNonce, barred: laneRetry},
	{name: "a reply too many", command: "ECHO", reply: wrongNonce + wrongNonce, barred: laneRetry},
	{name: "MULTI is refused", command: "MULTI", reply: "-ERR unknown command\r\n"},
	{name: "EXEC is refused", command: "EXEC", reply: "-ERR unknown command\r\n"},
	{name: "EXEC answers what was not asked", command: "EXEC", reply: "*1\r\n+OK\r\n"},
	{name: "EXEC answers null", command: "EXEC", reply: "*-1\r\n"},
	{name: "a script runs for long", command: "ECHO", reply: "-BUSY Redis is busy running a script.\r\n", barred: laneBusyRetry},
	{name: "EXEC while a script runs for long", command: "EXEC", reply: "-EXECABORT Transaction discarded because of: BUSY Redis is busy running a script.\r\n", barred: laneBusyRetry},
	{name: "it is full", command: "AUTH", reply: "-ERR max number of clients reached\r\n", barred: laneBusyRetry},
}

func TestLaneOpensOnlyWhenProven(t *testing.T) {
	t.Parallel()
	for _, tt := range laneSetUps {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w, other := h.dial(), h.dial()
			for _, w := range []*wire{w, other} {
				w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
				w.do("+OK\r\n", "SELECT", "7")
			}
			before := h.now()
			b.on(func(c *laneConn, args []string) (string, bool) {
				return tt.reply, c.lane && args[0] == tt.command && len(c.commands()) < 8
			})
			for _, w := range []*wire{w, other} {
				h.pass(stayInterval)
				w.do(bulk("7 3"), "HGET", "h", "f")
				w.send(cmd("MULTI") + cmd("HGET", "h", "f") + cmd("EXEC"))
				w.want("+OK\r\n+QUEUED\r\n*1\r\n" + bulk("7 3"))
			}
			if n := len(h.Stats().SessionsClosed); n != 0 {
				t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
			}
			if tt.barred > 0 {
				if n := len(b.connsWith(true, "HGET")); n != 0 || h.Stats().CommandsLane["HGET"] != 0 {
					t.Errorf("%d lanes were used", n)
				}
				set := h.onlySet()
				if until := set.BarredUntil(); until < before.Add(tt.barred) || until > h.now().Add(tt.barred) {
					t.Errorf("no lanes for %v", until.Sub(before))
				}
				return
			}
			h.wantOnLanes("HGET", map[bool]int{true: 4, false: 2}[tt.exec])
			h.wantOnLanes("EXEC", map[bool]int{true: 2, false: 0}[tt.exec])
		})
	}
}

// A key has lanes again behind its bar.
func TestLanesComeBackBehindTheirBar(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	b.on(func(c *laneConn, args []string) (string, bool) { return "-NOPERM no\r\n", c.lane && args[0] == "ECHO" })
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	w.get("1")
	h.wantOnLanes("GET", 0)
	if h.Stats().BackendErrors["no_lanes"] != 1 {
		t.Errorf("asked for lanes more than once: %v", h.Stats().BackendErrors)
	}
	b.on(nil)
	h.pass(laneRetry - time.Second)
	w.get("2")
	h.wantOnLanes("GET", 0)
	h.pass(time.Second)
	w.get("3")
	h.wantOnLanes("GET", 1)
}

func TestIdleLanesAndOwnConnectionsClose(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	h.wantReady(true, "")
	w := h.dial()
	w.get("0")
	w.do(bulk("info"), "INFO")
	l := h.lane()
	s := h.sessionOf(w)
	if !s.hasOwn() {
		t.Fatal("INFO needs an own connection")
	}
	eventually(t, "the lane is idle", func() bool { _, idle := l.idleAt(); return idle })
	h.sweepUnused()
	if l.stateNow() != laneOpen || !s.hasOwn() {
		t.Error("closed before their time")
	}
	h.closeUnused(s)
	<-l.closed()
	eventually(t, "nothing is left", func() bool { return !s.hasOwn() && len(h.openLanes()) == 0 && h.Stats().BackendConnections == 0 })
	w.get("1")
	w.do(bulk("info"), "INFO")
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// What is to go over the own connection goes behind a read that is sent again there, and that connection is closed when it is
// idle.
func TestOwnConnectionThatWasOpenedBehindALossCloses(t *testing.T) {
	t.Parallel()
	for name, behind := range map[string][2]string{"a command": {cmd("INFO", "x"), bulk("info")}, "a big command": {cmd("SET", "k", strings.Repeat("x", 3*netio.ChunkSize)), "+OK\r\n"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w := h.dial()
			w.get("0")
			held := b.hold("held")
			w.send(cmd("GET", "held"))
			<-held.reached
			w.send(behind[0])
			s := h.sessionOf(w)
			eventually(t, "it was read", func() bool { return s.holds.Load() == holdsCommands })
			held.reply <- waysToGo["reset"]
			w.want(valueOf("held") + behind[1])
			h.pass(stayInterval)
			w.get("1")
			h.closeUnused(s)
			eventually(t, "it is closed", func() bool { return !s.hasOwn() })
			if n := b.count("INFO", "") + b.count("SET", ""); n != 1 {
				t.Errorf("it was run %d times", n)
			}
		})
	}
}

func TestBusyLanesAndOwnConnectionsStay(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w, other := h.dial(), h.dial()
	w.get("0")
	held := b.hold("a")
	w.send(cmd("GET", "a"))
	<-held.reached
	l := h.lane()
	info := b.hold("INFO")
	other.send(cmd("INFO"))
	<-info.reached
	h.pass(10 * laneIdle)
	h.sweepUnused()
	if l.stateNow() != laneOpen || !h.sessionOf(other).hasOwn() {
		t.Error("closed while replies were owed")
	}
	held.release()
	info.release()
	w.want(valueOf("a"))
	other.want(bulk("info"))
}

// Without credentials a lane shows from time to time that the backend still wants none.
func TestLaneWithoutCredentialsEndsAfterAMinute(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string]bool{"with credentials": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) {
				if !secret {
					c.Backend.Credentials = nil
				}
			})
			w := h.dial()
			w.get("0")
			h.pass(stayInterval)
			w.get("1")
			h.wantOnLanes("GET", map[bool]int{true: 2, false: 1}[secret])
			l := h.lane()
			held := b.hold("a")
			w.send(cmd("GET", "a"))
			<-held.reached
			h.sweepUnused()
			if l.stateNow() != laneOpen {
				t.Error("retired before its time")
			}
			h.pass(unprovenLane)
			h.sweepUnused()
			if got := l.stateNow(); (got == laneRetired) == secret {
				t.Errorf("state %v", got)
			}
			held.release()
			w.want(valueOf("a"))
			w.get("2")
			if n := map[bool]int{true: 1, false: 2}[secret]; b.lanes() != n {
				t.Errorf("%d lanes, want %d", b.lanes(), n)
			}
		})
	}
}

// A session without credentials rides lanes once its own connection has answered something, and NOAUTH is no such thing.
func TestSessionWithoutCredentialsIsToBeServedFirst(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	b.on(func(c *laneConn, args []string) (string, bool) {
		return "-NOAUTH Authentication required.\r\n", args[0] == "GET" && args[1] == "refused"
	})
	h := b.start(func(c *Config) { c.Backend.Credentials = nil })
	w := h.dial()
	for range 3 {
		w.do("-NOAUTH Authentication required.\r\n", "GET", "refused")
		h.pass(stayInterval)
	}
	if b.lanes() != 0 {
		t.Error("who was refused rides lanes")
	}
	w.get("0")
	h.pass(stayInterval)
	w.get("1")
	h.wantOnLanes("GET", 1)
	other := h.dial()
	other.get("2")
	h.wantOnLanes("GET", 1)
	transactions := h.dial()
	for range 2 {
		transactions.send(cmd("MULTI") + cmd("GET", "3") + cmd("EXEC"))
		transactions.want("+OK\r\n+QUEUED\r\n*1\r\n" + valueOf("3"))
		h.pass(stayInterval)
	}
	h.wantOnLanes("EXEC", 1)
}

// What a fresh connection shows holds for the sessions of its lane key that begin soon after, and for no others.
func TestProofOfOneSessionServesThoseThatBeginSoon(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) {
		c.Recheck, c.Backend.Credentials, c.proofAge = (&judgement{}).recheck, nil, time.Hour
	})
	onLanes := 0
	ask := func(w *wire, rides bool) {
		t.Helper()
		if w.get("k"); rides {
			onLanes++
		}
		h.wantOnLanes("GET", onLanes)
	}
	authenticated := h.dialAs("a")
	authenticated.do("+OK\r\n", "AUTH", "secret")
	ask(authenticated, false)
	first, second, another := h.dialAs("a"), h.dialAs("a"), h.dialAs("b")
	ask(first, false) // what a client shows that has authenticated itself is no proof
	ask(second, true)
	ask(another, false) // of another identity
	h.ahead.Add(time.Hour + 1)
	late := h.dialAs("a")
	ask(late, false)
	ask(h.dialAs("a"), true)
}

// A reply on a connection that was opened long ago shows nothing of what the backend now wants of a fresh one.
func TestOldConnectionIsNoProof(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) {
		c.Recheck, c.Backend.Credentials, c.proofAge = (&judgement{}).recheck, nil, time.Minute
	})
	old, first, another := h.dialAs("a"), h.dialAs("a"), h.dialAs("a")
	held := b.hold("held")
	old.send(cmd("INFO", "held")) // or a command that blocks
	<-held.reached
	first.get("0")
	first.get("1") // on a lane, which stays open for a while
	const noAuth = "-NOAUTH Authentication required.\r\n"
	h.ahead.Add(time.Minute + 1)
	b.onAccept(func(c *laneConn) { // a password is wanted from here on
		for {
			if _, err := c.next(); err != nil {
				return
			}
			c.w.WriteString(noAuth)
		}
	})
	held.release()
	old.want(bulk("info"))
	another.do(noAuth, "GET", "k")
}

// A connection that only showed that the backend serves its session is not kept; one that did more is, for a while.
func TestProofIsClosedAtOnce(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	b.on(func(c *laneConn, args []string) (string, bool) {
		return "-NOAUTH Authentication required.\r\n", args[0] == "GET" && args[1] == "refused"
	})
	h := b.start(func(c *Config) { c.Backend.Credentials = nil })
	proof, more, pipeline := h.dial(), h.dial(), h.dial()
	proof.do("-NOAUTH Authentication required.\r\n", "GET", "refused")
	if !h.sessionOf(proof).hasOwn() {
		t.Error("closed before it was proof")
	}
	proof.get("0")
	more.do(bulk("info"), "INFO")
	more.get("0")
	pipeline.send(cmd("GET", "1") + cmd("INFO") + cmd("GET", "2"))
	pipeline.want(valueOf("1") + bulk("info") + valueOf("2"))
	eventually(t, "it is closed", func() bool { return !h.sessionOf(proof).hasOwn() })
	for name, w := range map[string]*wire{"INFO": more, "a pipeline with INFO": pipeline} {
		if !h.sessionOf(w).hasOwn() {
			t.Errorf("%s: closed at once", name)
		}
	}
	proof.get("3")
	h.wantOnLanes("GET", 1)
	proof.do(bulk("info"), "INFO")
	if !h.sessionOf(proof).hasOwn() {
		t.Error("the next one is closed at once")
	}
	eventually(t, "the closed one gives its place back", func() bool { return h.Stats().BackendConnections <= 5 }) // 3 own, a lane, the prober's
	if n := h.Stats().BackendErrors["lost"]; n != 0 {
		t.Errorf("%d lost", n)
	}
}

// Nobody shares a lane with a client that something at the backend tells apart from it.
func TestLanesAreKeyed(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	j := &judgement{}
	h := b.start(func(c *Config) { c.Recheck = j.recheck })
	a, second, other := h.dialAs("a"), h.dialAs("a"), h.dialAs("other")
	for i, w := range []*wire{a, second, other} {
		w.get(fmt.Sprint(i))
	}
	a.do("+OK\r\n", "SELECT", "3")
	h.pass(stayInterval)
	a.do(bulk("3 2"), "HGET", "h", "f")
	second.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
	h.pass(stayInterval)
	second.do(bulk("0 3"), "HGET", "h", "f")
	other.do(bulk("0 2"), "HGET", "h", "f")
	a.do("+OK\r\n", "SET", "k", "v")
	h.wantOnLanes("HGET", 3)
	conns := map[*laneConn]bool{}
	for _, name := range []string{"GET", "HGET"} {
		for _, c := range b.connsWith(true, name) {
			conns[c] = true
		}
	}
	if len(conns) != 4 {
		t.Errorf("%d lanes, want those of two clients, a database and a protocol", len(conns))
	}
}

// A lane that takes no new work is among no key's any more, and ends with the Server all the same.
func TestCloseEndsARetiredLaneWhoseBackendIsSilent(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	l := h.lane()
	l.retire()
	closed := make(chan struct{})
	go func() { h.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(patience):
		held.release() // or the test would not end
		t.Error("Close waits for the backend")
	}
}
