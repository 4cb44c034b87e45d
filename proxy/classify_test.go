package proxy

import (
	"io"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

// A name that only begins like RESET or QUIT is one that nobody knows: it goes over the session's own connection, alone
// and behind commands that ride a lane.
func TestNameThatBeginsLikeAnotherIsUnknown(t *testing.T) {
	for _, name := range []string{"RESET x", "QUIT x", "RESET ", " QUIT", "RESET \r\n$6\r\nforged\r\n-ERR ", "EXEC ", "MULTI x", "SELECT 1", "GET x"} {
		for _, before := range []string{"", cmd("GET", "before")} {
			b := newLaneBackend(t)
			h := b.start(nil)
			attacker, victim := h.dial(), h.dial()
			attacker.get("1")
			victim.get("2")
			h.lane().nonces(false)
			attacker.send(before + cmd(name) + cmd("GET", "a"))
			victim.get("b")
			if before != "" {
				attacker.want(valueOf("before"))
			}
			attacker.want("-ERR unknown command\r\n" + valueOf("a"))
			victim.get("c")
			if n := len(b.connsWith(true, name)); n != 0 {
				t.Errorf("%q rode a lane", name)
			}
		}
	}
}

// The backend answers a big command before it is whole, and closes: what is still to come of it is no command, and
// reaches no other connection.
func TestRestOfACommandReachesNoOtherConnection(t *testing.T) {
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("1")
	// The backend reads the beginning, answers and closes.
	b.onRaw(func(c *laneConn) bool {
		head, err := c.r.Peek(13) // no command that comes here is shorter
		if err != nil || !strings.Contains(string(head), "$3\r\nSET") {
			return false
		}
		io.CopyN(io.Discard, c.r, 1000)
		io.WriteString(c.Conn, "-ERR Protocol error: invalid bulk length\r\n")
		c.Close()
		return true
	})
	w.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$400000\r\n" + strings.Repeat("x", 70<<10))
	w.want("-ERR Protocol error: invalid bulk length\r\n")
	rest := strings.Repeat("FLUSHALL smuggled\r\n", 400000/19+1)
	w.SetWriteDeadline(time.Now().Add(patience))
	// Where the end of the connection is noticed before the last of the command was passed to it, the session ends.
	io.WriteString(w, rest[:400000-70<<10]+"\r\n"+cmd("GET", "2")+cmd("QUIT"))
	if got, goesOn := w.wantEnd(), valueOf("2")+"+OK\r\n"; got != "" && got != goesOn {
		t.Errorf("got %q, want nothing or %q", got, goesOn)
	}
	if n := b.count("FLUSHALL", ""); n != 0 {
		t.Errorf("%d commands of the rest ran", n)
	}
	if b.lines("FLUSHALL") {
		t.Error("the rest reached another connection")
	}
}

// What is asked again goes to a connection that is still the session's own, and only while its answer is owed.
func TestWhatWasAnsweredIsNotAskedAgain(t *testing.T) {
	up := &ownConn{}
	for name, tt := range map[string]struct {
		change       func(*session)
		frame, again bool
	}{
		"it is owed":             {func(*session) {}, true, false},
		"nothing is owed":        {func(s *session) { s.queue.owed = 0 }, false, false},
		"the session has ended":  {func(s *session) { s.queue.closed = true }, false, false},
		"the connection is gone": {func(s *session) { s.pump.up = nil }, false, true},
		"its lane brings it":     {func(s *session) { s.queue.onLane = true }, false, false},
	} {
		s := &session{}
		s.queue.init(netio.NewBuffers(0).NewAccount())
		s.queue.out = &outbox{resend: []byte("x")}
		s.queue.pushLocked([]slot{{n: 1}}, 0)
		s.pump.up = up
		tt.change(s)
		if frame, again := s.takeResend(up); (frame != nil) != tt.frame || again != tt.again {
			t.Errorf("%s: got %q, again: %v", name, frame, again)
		}
	}
}

// Whatever a name is made of, its command has exactly one reply, in its place, and the session and its neighbours go on.
func TestEveryNameAndWhatLooksLikeItIsAnsweredInItsPlace(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) {
		share(c)
		c.Backend.Credentials = func() (string, string, error) { return "default", "any", nil }
		c.stayInterval, c.unavailableTimeout = time.Millisecond, patience
	})
	victim := h.dial()
	for i, name := range commandNames() {
		if strings.Contains(name, "SHUTDOWN") || name == "DEBUG" {
			continue
		}
		for _, form := range []string{" " + name, name + " ", name + " x", name + "\t1", name + "\x00y", name + "\r\n+OK", strings.ToLower(name) + "x"} {
			w := h.dial()
			mark := bulk(name + itoa(i))
			w.send(cmd("GET", "before") + cmd(form) + cmd("ECHO", name+itoa(i)))
			victim.do("$-1\r\n", "GET", "victim")
			w.want("$-1\r\n")
			w.SetReadDeadline(time.Now().Add(patience))
			line, err := w.r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "-") {
				t.Errorf("%q: got %q, %v", form, line, err)
			} else if got, _ := w.r.Peek(1); len(got) == 1 { // else the session has ended
				w.want(mark)
			}
			w.Close()
		}
	}
	victim.do("$-1\r\n", "GET", "victim")
}
