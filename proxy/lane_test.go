package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

const wrongNonce = "$16\r\n0000000000000000\r\n"

// in the place of the reply to "GET a", behind which "GET b" of another session is in flight.
var laneFaults = []struct {
	name   string
	nonce  bool // one is behind "GET a"
	reply  func(c *laneConn) string
	a      string // what the asker gets
	closed bool   // the asker is closed
}{
	{name: "a push on a RESP2 lane", reply: says(">2\r\n+a\r\n+b\r\n"), closed: true},
	{name: "a push inside an array", reply: says("*1\r\n" + invalidate("k") + valueOf("a")), closed: true},
	{name: "a push inside a set", reply: says("~2\r\n$1\r\na\r\n" + invalidate("k") + "$1\r\nb\r\n"), closed: true},
	{name: "a push inside an array inside a push", reply: says(">1\r\n*1\r\n" + invalidate("k") + valueOf("a")), closed: true},
	{name: "a push with an attribute", reply: says("|1\r\n+a\r\n+b\r\n>1\r\n+c\r\n" + valueOf("a")), closed: true},
	{name: "a push that is none", reply: says(">-1\r\n" + valueOf("a")), closed: true},
	{name: "a bare LF in a push", reply: says(">1\r\n+a\nb\r\n" + valueOf("a")), closed: true},
	{name: "no type", reply: says("hello\r\n"), closed: true},
	{name: "a bare LF in a line", reply: says("+a\nb\r\n"), closed: true},
	{name: "a bare CR in a line", reply: says("-ERR a\rb\r\n"), closed: true},
	{name: "a bare LF in an error that quotes", reply: says("-ERR unknown command 'a\n+OK\r\n"), closed: true},
	{name: "a line above 128 KiB", reply: says("+" + strings.Repeat("x", 140000) + "\r\n"), closed: true},
	{name: "a negative length", reply: says("$-2\r\n"), closed: true},
	{name: "a bulk that is longer than it says", reply: says("$1\r\nabc\r\n"), closed: true},
	{name: "an integer that is none", reply: says(":1x\r\n"), closed: true},
	{name: "the framing is lost", reply: says("-ERR Protocol error: invalid bulk length\r\n"), closed: true},
	{name: "a wrong nonce", nonce: true, reply: func(c *laneConn) string { c.next(); return valueOf("a") + wrongNonce }, a: valueOf("a")},
	{name: "an error in a nonce's place", nonce: true, reply: func(c *laneConn) string { c.next(); return valueOf("a") + "-ERR no\r\n" }, a: valueOf("a")},
	{name: "a longer nonce", nonce: true, reply: func(c *laneConn) string {
		args, _ := c.next()
		return valueOf("a") + bulk(args[1]+"0")
	}, a: valueOf("a")},
	{name: "a nonce that is late", nonce: true, reply: func(c *laneConn) string {
		args, _ := c.next()
		c.next()
		return valueOf("a") + valueOf("b") + bulk(args[1])
	}, a: valueOf("a")},
	{name: "a reply too many before a nonce", nonce: true, reply: says(valueOf("a") + valueOf("x")), a: valueOf("a")},
}

func says(reply string) func(*laneConn) string { return func(*laneConn) string { return reply } }

func TestLaneWhoseRepliesMayBeOutOfPlaceTakesWhoIsOnItAlong(t *testing.T) {
	t.Parallel()
	for _, tt := range laneFaults {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			a, other, idle := h.dial(), h.dial(), h.dial()
			for i, w := range []*wire{a, other, idle} {
				w.get(fmt.Sprint(i))
			}
			l := h.lane()
			l.nonces(tt.nonce)
			held := b.hold("a")
			a.send(cmd("GET", "a"))
			<-held.reached
			other.send(cmd("GET", "b"))
			eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
			held.reply <- tt.reply
			other.endsUnanswered()
			want := 1
			if tt.closed {
				want = 2
				// The beginning of a line may have gone out when its end shows what it is.
				if got := a.wantEnd(); got != "" && (tt.name != "a line above 128 KiB" || strings.Trim(got, "+x") != "") {
					t.Errorf("who asked got %.100q", got)
				}
			} else {
				a.want(tt.a)
				a.get("afterwards")
			}
			h.wantClosed(closeLane, uint64(want))
			idle.get("on another lane")
			if tt.closed {
				h.wantOnLanes("GET", 6)
			} else {
				h.wantOnLanes("GET", 7)
			}
			if b.lanes() != 2 || h.Stats().BackendErrors["lane"] != 1 {
				t.Errorf("%d lanes, errors %v", b.lanes(), h.Stats().BackendErrors)
			}
		})
	}
}

// Where the fault shows only in what a session got already, the lane ends all the same.
func TestLaneEndsForWhatNobodyAsked(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{
		"a reply":                valueOf("a") + "+extra\r\n",
		"half a reply":           valueOf("a") + "$5\r\nab",
		"a push on a RESP2 lane": valueOf("a") + ">1\r\n+x\r\n",
		"a push that is none":    valueOf("a") + ">1\r\nx\r\n",
		"a reply after a push":   valueOf("a") + invalidate("k") + "+extra\r\n",
		"garbage":                valueOf("a") + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w := h.dial()
			w.get("0")
			l := h.lane()
			l.nonces(false)
			held := b.hold("a")
			w.send(cmd("GET", "a"))
			<-held.reached
			held.say(reply)
			w.want(valueOf("a"))
			<-l.closed()
			w.get("on another lane")
			h.wantOnLanes("GET", 3)
			if b.lanes() != 2 || h.closedFor(closeLane) != 0 {
				t.Errorf("%d lanes, %d sessions closed", b.lanes(), h.closedFor(closeLane))
			}
		})
	}
}

// Redis answers so while a script runs for long. It shows nothing about the order, so the next batch has to, whenever it comes.
func TestNonceOfABusyBackendEndsNoLane(t *testing.T) {
	t.Parallel()
	const busy = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n"
	for name, cut := range map[string]int{"whole": len(busy), "in pieces": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			a, other := h.dial(), h.dial()
			a.get("0")
			other.get("1")
			l := h.lane()
			l.nonces(true)
			held := b.hold("a")
			a.send(cmd("GET", "a"))
			<-held.reached
			other.send(cmd("GET", "b"))
			eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
			l.nonces(false)
			held.reply <- func(c *laneConn) string {
				c.next()
				c.w.WriteString(busy + busy[:cut])
				c.w.Flush()
				return busy[cut:]
			}
			a.want(busy)
			other.want(valueOf("b"))
			echoes := b.count("ECHO", "")
			a.get("same lane")
			eventually(t, "it is asked again", func() bool { return b.count("ECHO", "") == echoes+1 })
			if b.lanes() != 1 || h.closedFor(closeLane) != 0 {
				t.Errorf("%d lanes, %d sessions closed", b.lanes(), h.closedFor(closeLane))
			}
		})
	}
}

// A nonce that comes before its time is seen when the next reply comes in its place.
func TestNonceInTheWrongPlaceEndsTheLane(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]func(*laneConn) string{
		"early":           func(c *laneConn) string { args, _ := c.next(); return bulk(args[1]) + valueOf("a") },
		"a reply is lost": func(c *laneConn) string { args, _ := c.next(); return bulk(args[1]) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			a, other := h.dial(), h.dial()
			a.get("0")
			other.get("1")
			l := h.lane()
			l.nonces(true)
			held := b.hold("a")
			a.send(cmd("GET", "a"))
			<-held.reached
			other.send(cmd("GET", "b"))
			eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
			held.reply <- reply
			other.endsUnanswered()
			h.wantClosed(closeLane, 1)
			h.dial().get("on another lane")
		})
	}
}

var execReplies = []struct {
	name, reply string
	fine        bool
}{
	{"an array", "*1\r\n" + valueOf("a"), true},
	{"an array with an error in it", "*1\r\n-WRONGTYPE x\r\n", true},
	{"null", "*-1\r\n", true},
	{"null bulk", "$-1\r\n", true},
	{"RESP3 null", "_\r\n", true},
	{"aborted", "-EXECABORT Transaction discarded because of previous errors.\r\n", true},
	{"aborted without a period", "-EXECABORT Transaction discarded because of previous errors\r\n", true},
	{"aborted by Redis while a script runs", "-EXECABORT Transaction discarded because of: BUSY Redis is busy running a script.\r\n", true},
	{"aborted by Redis that has no memory left", "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\r\n", true},
	{"aborted for another cause", "-EXECABORT Transaction discarded because the wind blows\r\n", false},
	{"aborted with two periods", "-EXECABORT Transaction discarded because of previous errors..\r\n", false},
	{"an error", "-ERR EXEC without MULTI\r\n", false},
	{"OK", "+OK\r\n", false},
	{"queued", "+QUEUED\r\n", false},
	{"a number", ":1\r\n", false},
	{"a bulk", valueOf("a"), false},
}

func TestExecThatIsNeitherRunNorDiscardedEndsItsLane(t *testing.T) {
	t.Parallel()
	for _, tt := range execReplies {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			a, other := h.dial(), h.dial()
			a.get("0")
			other.get("1")
			l := h.lane()
			l.nonces(false)
			held := b.hold("a")
			a.send(cmd("MULTI") + cmd("GET", "a") + cmd("EXEC"))
			<-held.reached
			other.send(cmd("GET", "b"))
			eventually(t, "both are in flight and written", func() bool { return l.written() == 4 })
			held.reply <- func(c *laneConn) string {
				c.next()
				c.multi = false
				return "+QUEUED\r\n" + tt.reply
			}
			if tt.fine {
				a.want("+OK\r\n+QUEUED\r\n" + tt.reply)
				other.want(valueOf("b"))
				a.get("same lane")
				h.wantOnLanes("EXEC", 1)
				if b.lanes() != 1 {
					t.Errorf("%d lanes", b.lanes())
				}
				return
			}
			other.endsUnanswered()
			if got := a.wantEnd(); len(got) > len("+OK\r\n+QUEUED\r\n") {
				t.Errorf("who asked got %q", got)
			}
			h.wantClosed(closeLane, 2)
			h.dial().get("on another lane")
		})
	}
}

// Nothing of anybody else, nonces included, is written inside a transaction.
func TestTransactionOnALaneIsWrittenWithoutGaps(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	b.on(func(c *laneConn, args []string) (string, bool) {
		if c.multi && args[0] == "ECHO" {
			t.Error("a nonce inside a transaction")
			c.reset()
		}
		return "", false
	})
	const sessions, rounds = 4, 50
	all := make([]*wire, sessions)
	for i := range all {
		all[i] = h.dial()
		all[i].get(fmt.Sprint(i))
	}
	h.lane().nonces(true)
	done := make(chan string, sessions)
	for i, w := range all {
		go func() {
			for n := range rounds {
				key := fmt.Sprintf("%d-%d", i, n)
				want := "+OK\r\n+QUEUED\r\n*1\r\n" + valueOf(key)
				got := make([]byte, len(want))
				io.WriteString(w, cmd("MULTI")+cmd("GET", key)+cmd("EXEC"))
				for _, l := range h.openLanes() {
					l.nonces(true)
				}
				if _, err := io.ReadFull(w.r, got); err != nil || string(got) != want {
					done <- fmt.Sprintf("got %q (%v), want %q", got, err, want)
					return
				}
			}
			done <- ""
		}()
	}
	for range all {
		if s := <-done; s != "" {
			t.Error(s)
		}
	}
	if t.Failed() {
		return
	}
	h.wantOnLanes("EXEC", sessions*rounds)
	if n := b.count("ECHO", ""); n < rounds {
		t.Errorf("%d nonces", n)
	}
}
