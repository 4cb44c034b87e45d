package proxy

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
	"dragontls/proxy/resp"
)

// quits are sessions that send QUIT, with the replies of each backend to a direct client that sends one command at a time. With
// goesOn, Dragonfly's main does not close the connection.
var quits = map[string]struct {
	commands       [][]string
	redis, old, is string // Redis, Dragonfly v1.40.1 and its main
	goesOn         bool
}{
	"on its own connection": {
		commands: [][]string{{"CLIENT", "SETNAME", "x"}, {"ECHO", "1"}, {"QUIT"}},
		redis:    "+OK\r\n$1\r\n1\r\n+OK\r\n", old: "+OK\r\n$1\r\n1\r\n+OK\r\n", is: "+OK\r\n$1\r\n1\r\n+OK\r\n"},
	"on lanes": {
		commands: [][]string{{"SET", "a", "1"}, {"GET", "a"}, {"QUIT"}},
		redis:    "+OK\r\n$1\r\n1\r\n+OK\r\n", old: "+OK\r\n$1\r\n1\r\n+OK\r\n", is: "+OK\r\n$1\r\n1\r\n+OK\r\n"},
	"in a transaction": {
		commands: [][]string{{"MULTI"}, {"SET", "q", "1"}, {"QUIT"}, {"EXEC"}},
		redis:    "+OK\r\n+QUEUED\r\n+OK\r\n", old: "+OK\r\n+QUEUED\r\n", is: "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n"},
	"in a transaction, first": {
		commands: [][]string{{"MULTI"}, {"QUIT"}, {"SET", "q", "1"}, {"EXEC"}},
		redis:    "+OK\r\n+OK\r\n", old: "+OK\r\n", is: "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n"},
	"in a transaction of a connection for life": {
		commands: [][]string{{"MULTI"}, {"SELECT", "0"}, {"PING"}, {"QUIT"}, {"DISCARD"}, {"MULTI"}, {"QUIT"}, {"EXEC"}},
		redis:    "+OK\r\n+QUEUED\r\n+QUEUED\r\n+OK\r\n", old: "+OK\r\n+QUEUED\r\n+QUEUED\r\n",
		is: "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"},
	"in a transaction that is discarded": {
		commands: [][]string{{"MULTI"}, {"QUIT"}, {"DISCARD"}},
		redis:    "+OK\r\n+OK\r\n", old: "+OK\r\n", is: "+OK\r\n+QUEUED\r\n+OK\r\n", goesOn: true},
	"in a transaction that is aborted": {
		commands: [][]string{{"MULTI"}, {"QUIT"}, {"GET"}, {"EXEC"}},
		redis:    "+OK\r\n+OK\r\n", old: "+OK\r\n", goesOn: true,
		is: "+OK\r\n+QUEUED\r\n-ERR wrong number of arguments for 'get' command\r\n-EXECABORT Transaction discarded because of previous errors\r\n"},
	"in a transaction that dragontls refuses": {
		commands: [][]string{{"MULTI"}, {"QUIT"}, {"SHUTDOWN"}, {"EXEC"}},
		redis:    "+OK\r\n+OK\r\n", old: "+OK\r\n", goesOn: true,
		is: "+OK\r\n+QUEUED\r\n" + denied("SHUTDOWN") + string(textExecAbort)},
	"with an argument": {
		commands: [][]string{{"QUIT", "x"}, {"QUIT"}},
		redis:    "+OK\r\n", // it takes any
		old:      "-ERR wrong number of arguments for 'quit' command\r\n+OK\r\n", is: "-ERR wrong number of arguments for 'quit' command\r\n+OK\r\n"},
}

// No reply before QUIT is lost, and nothing after it is passed on, however the commands are pipelined.
func TestQuitIsTheBackends(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, q := range quits {
			for backend, want := range map[string]string{"redis": q.redis, "v1.40": q.old, "main": q.is} {
				if name == "with an argument" && backend == "redis" {
					continue // dragontls passes it on as a command that may go on
				}
				for _, atOnce := range []bool{false, true} {
					t.Run(map[bool]string{true: "at once ", false: "one by one "}[atOnce]+name+", "+backend, func(t *testing.T) {
						t.Parallel()
						quitsAs(t, m, backend, q.commands, atOnce, want, q.goesOn && backend == "main")
					})
				}
			}
		}
	})
}

func quitsAs(t *testing.T, m mode, backend string, commands [][]string, atOnce bool, want string, goesOn bool) {
	addr := ""
	switch backend {
	case "redis":
		addr = redisServer(t)
	case "v1.40":
		addr = dragonfly(t, proxytest.Options{}).Addr()
	case "main":
		addr = dragonfly(t, proxytest.Options{Release: proxytest.August2026}).Addr()
	}
	h := m.start(t, addr, func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
	w := h.dial()
	w.do("$-1\r\n", "GET", "no") // the backend has answered it
	all := append(commands[:len(commands):len(commands)], []string{"ECHO", "behind"})
	if atOnce {
		sent := ""
		for _, c := range all {
			sent += cmd(c...)
		}
		w.send(sent)
	}
	got := ""
	for _, c := range all {
		if !atOnce {
			_, _ = w.Write([]byte(cmd(c...))) // it may have ended
		}
		reply, ended := w.frame()
		got += reply
		if ended {
			break
		}
	}
	if goesOn {
		want += bulk("behind")
	} else {
		got += w.wantEnd()
		w.Close()
		h.wantClosed(closeQuit, 1)
	}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// frame reads one reply, or to the end.
func (w *wire) frame() (reply string, ended bool) {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	var r resp.Replies
	for {
		b, err := w.r.ReadByte()
		if err != nil {
			return reply, true
		}
		reply += string(b)
		if _, done, err := r.Next([]byte{b}); done || err != nil {
			return reply, false
		}
	}
}

// A transaction that a watched key aborts does not run its QUIT either. Dragonfly's main says so by *-1 in RESP2. The session
// goes on, and need not stay on its own connection.
func TestAbortedTransactionDoesNotQuit(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{Release: proxytest.August2026})
		h := m.start(t, d.Addr(), nil)
		w, other := h.dial(), dialPlain(t, d.Addr())
		for _, queued := range []string{"QUIT", "PING"} {
			w.do("+OK\r\n", "WATCH", "k")
			other.do("+OK\r\n", "SET", "k", "v")
			w.do("+OK\r\n", "MULTI")
			w.do("+QUEUED\r\n", queued)
			w.do("*-1\r\n", "EXEC")
			w.do("$1\r\nv\r\n", "GET", "k")
			h.pass(stayInterval)
			before := h.Stats().CommandsLane["GET"]
			w.do("$1\r\nv\r\n", "GET", "k")
			if m.shared {
				h.wantOnLanes("GET", int(before)+1)
			}
		}
	})
}

// A subscribed or blocked client that leaves in good order has left: the backend did not close anything by itself.
func TestWaitingClientThatLeavesIsCountedAsItself(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for backend, addr := range map[string]string{"redis": redisServer(t), "dragonfly": dragonfly(t, proxytest.Options{}).Addr()} {
			for _, waits := range []string{"SUBSCRIBE c", "MONITOR", "BLPOP nothing 0"} {
				for name, leave := range map[string]func(*wire){"closes": func(w *wire) { w.Close() }, "sends no more": (*wire).endWrites} {
					t.Run(backend+" "+strings.Fields(waits)[0]+" "+name, func(t *testing.T) {
						h := m.start(t, addr, nil)
						w := h.dial()
						w.do("$-1\r\n", "GET", "no")
						w.send(waits + "\r\n")
						s := h.sessionOf(w)
						eventually(t, "it waits", func() bool { return s.waiting() && s.hasOwn() })
						leave(w)
						h.wantClosed(closeClient, 1)
						if n := len(h.Stats().SessionsClosed); n != 1 {
							t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
						}
					})
				}
			}
		}
	})
}

// Dragonfly's main may announce more in EXEC than it sends: MULTI, ZUNION ” 6, EVAL, EXEC. The client waits, as it does on a
// direct connection, and nobody else.
func TestExecThatAnnouncesTooMuchHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{Release: proxytest.August2026})
		var scripted, silent atomic.Int64 // the connection with EVAL in its transaction, also once it answers nothing more
		d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) {
			switch mine := scripted.Load() == int64(conn); {
			case silent.Load() == int64(conn):
				return nil, true
			case string(args[0]) == "EVAL":
				scripted.Store(int64(conn))
			case string(args[0]) == "EXEC" && mine:
				silent.Store(int64(conn))
				return []byte("*2\r\n*0\r\n"), true
			}
			return nil, false
		})
		h := m.start(t, d.Addr(), nil)
		w, other := h.dial(), h.dial()
		for _, c := range []*wire{w, other} {
			c.do("$-1\r\n", "GET", "no")
		}
		w.send(cmd("MULTI") + cmd("GET", "no") + cmd("EVAL", "return 1", "0") + cmd("EXEC") + cmd("GET", "no"))
		w.want("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n*0\r\n")
		for range 20 {
			other.send(cmd("MULTI") + cmd("GET", "no") + cmd("EXEC"))
			other.want("+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n")
		}
		if n := w.r.Buffered(); n != 0 || !h.sessionOf(w).owes() {
			t.Errorf("%d bytes more came", n)
		}
	})
}

// While replies are not counted, nobody can tell which of them belongs to QUIT: what follows is passed on.
func TestQuitInsideATransactionOfASubscriber(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonfly(t, proxytest.Options{Release: proxytest.August2026}).Addr(), nil)
		w := h.dial()
		w.greetedBy("%7\r\n", "HELLO", "3")
		w.do(">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "SUBSCRIBE", "c")
		w.do("+OK\r\n", "MULTI")
		w.do("+QUEUED\r\n", "QUIT")
		w.do("+OK\r\n", "DISCARD")
		w.send(cmd("MULTI") + cmd("SET", "q", "1") + cmd("QUIT"))
		w.want("+OK\r\n+QUEUED\r\n+QUEUED\r\n")
		w.send(cmd("EXEC"))
		w.want("*2\r\n+OK\r\n+OK\r\n")
		w.wantCleanEnd()
	})
}
