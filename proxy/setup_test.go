package proxy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
	"dragontls/proxy/resp"
)

// busyScript has a client of the backend run a script that does not end by itself. The test ends it with SCRIPT KILL.
func busyScript(t *testing.T, addr string) {
	t.Helper()
	operator, other := dialPlain(t, addr), dialPlain(t, addr)
	operator.do("+OK\r\n", "CONFIG", "SET", "busy-reply-threshold", "1")
	other.send(cmd("EVAL", "while true do end", "0"))
	eventually(t, "the script keeps the backend", func() bool {
		operator.send(cmd("PING"))
		return strings.HasPrefix(operator.line(), "-BUSY ")
	})
}

// silent has a session ask for this state, then gives back its own connection, as after 5 s without a command.
func (h *harness) silent(w *wire, state ...[]string) {
	h.t.Helper()
	for _, args := range state {
		w.send(cmd(args...))
		w.reply()
	}
	if h.Server.c.Backend.Shared {
		h.closeOwnOf(w)
	}
}

// A state that the backend does not restore ends the session, at once and after no more dials than it takes to find out. The error
// says which state was refused by which answer. A session that keeps its connection does not notice.
func TestStateThatRedisRefusesIsFinal(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		state  []string
		change [][]string // at the backend
		says   string
	}{
		"SELECT is forbidden": {[]string{"SELECT", "9"}, [][]string{{"ACL", "SETUSER", "default", "-select"}}, "SELECT 9, which this session has done before, so the session ends: NOPERM"},
		"a password":          {[]string{"SELECT", "9"}, [][]string{{"CONFIG", "SET", "requirepass", "pw"}}, "SELECT 9, which this session has done before, so the session ends: NOAUTH"},
		"a password, RESP3":   {[]string{"HELLO", "3"}, [][]string{{"CONFIG", "SET", "requirepass", "pw"}}, "HELLO 3, which this session has done before, so the session ends: NOAUTH"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, m mode) {
				addr := redisServer(t)
				h := m.start(t, addr, nil)
				operator := dialPlain(t, addr)
				var all []*wire
				for range 3 {
					w := h.dial()
					w.do("+OK\r\n", "SET", "a", "x")
					h.silent(w, tt.state)
					all = append(all, w)
				}
				for _, args := range tt.change {
					operator.do("+OK\r\n", args...)
				}
				dials := h.Stats().BackendDials
				for _, w := range all {
					w.send(cmd("EXISTS", "a"))
					if !m.shared {
						w.line()
						continue
					}
					if got := w.wantEnd(); !strings.HasPrefix(got, "-ERR dragontls: the backend refuses "+tt.says) || strings.Count(got, "\r\n") != 1 {
						t.Errorf("got %q", got)
					}
				}
				if !m.shared {
					return
				}
				h.wantClosed(closeBackendState, uint64(len(all)))
				// One for the first lane, which bars the others for a while, and one for each session.
				if n := h.Stats().BackendDials - dials; n > uint64(len(all)+1) {
					t.Errorf("%d dials", n)
				}
			})
		})
	}
}

// The same where the backend has fewer databases after a restart.
func TestDatabaseThatIsGoneAfterARestartIsFinal(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		before, after := redisServer(t), redisServer(t, "--databases", "1")
		at := switchedTo(before)
		h := m.start(t, before, func(c *Config) { c.Backend.Target = at.target })
		w := h.dial()
		h.silent(w, []string{"SELECT", "9"}, []string{"SET", "a", "x"})
		at.to(after)
		if !m.shared {
			return // such a session has ended with its connection
		}
		dials := h.Stats().BackendDials
		w.send(cmd("GET", "a"))
		if got, want := w.wantEnd(), "-ERR dragontls: the backend refuses SELECT 9, which this session has done before, so the session ends: ERR DB index is out of range\r\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if n := h.Stats().BackendDials - dials; n > 2 {
			t.Errorf("%d dials", n)
		}
	})
}

// While a script keeps the backend, commands are answered as on a direct connection: what needs a database gets the backend's -BUSY, and
// what ends the script gets through, also from a session whose database cannot be restored meanwhile.
func TestBusyBackendAnswersWhoeverWaits(t *testing.T) {
	t.Parallel()
	for _, kill := range []string{"SCRIPT", "FUNCTION"} {
		t.Run(kill, func(t *testing.T) {
			t.Parallel()
			eachMode(t, func(t *testing.T, m mode) {
				addr := redisServer(t)
				h := m.start(t, addr, nil)
				w, other := h.dial(), h.dial()
				for _, w := range []*wire{w, other} {
					w.do("+OK\r\n", "SELECT", "9")
					w.do("+OK\r\n", "SET", "a", "nine")
					h.silent(w)
				}
				if kill == "FUNCTION" {
					busyFunction(t, addr)
				} else {
					busyScript(t, addr)
				}
				other.send(cmd("GET", "a") + cmd("SELECT", "3") + cmd("EVALSHA", sha("x"), "0"))
				for range 3 {
					other.wantBusy()
				}
				// What is asked in the same write as the KILL is not sent to another database.
				w.send(cmd("GET", "a") + cmd("SET", "a", "zero") + cmd("FUNCTION", "STATS"))
				w.wantBusy()
				w.wantBusy()
				if got := w.reply(); (got[0] == '*') != (kill == "FUNCTION") { // Redis itself answers it while a function runs, not while EVAL does
					t.Errorf("FUNCTION STATS: %q", got)
				}
				w.send(cmd(kill, "KILL"))
				w.want("+OK\r\n")
				for _, w := range []*wire{w, other} {
					eventually(t, "the database is back", func() bool {
						w.send(cmd("GET", "a"))
						got := w.reply()
						if got != bulk("nine") && !strings.HasPrefix(got, "-BUSY ") {
							t.Fatalf("GET a: %q", got)
						}
						return got == bulk("nine")
					})
				}
				if n := len(h.Stats().SessionsClosed); n != 0 {
					t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
				}
			})
		})
	}
}

// A transaction that is sent at once is refused command by command while a script runs, and the session goes on. One that begins alone
// ends a session whose database cannot be restored: what the client sends next must not run outside of it.
func TestTransactionsWhileTheBackendIsBusy(t *testing.T) {
	t.Parallel()
	addr := redisServer(t)
	h := modes()[0].start(t, addr, nil)
	whole, pieces := h.dial(), h.dial()
	for _, w := range []*wire{whole, pieces} {
		w.do("+OK\r\n", "SET", "a", "zero")
		h.silent(w, []string{"SELECT", "9"})
	}
	busyScript(t, addr)
	whole.send(cmd("MULTI") + cmd("GET", "a") + cmd("EXEC"))
	for range 3 {
		whole.wantBusy()
	}
	pieces.send(cmd("MULTI"))
	pieces.wantBusy()
	if rest := pieces.wantEnd(); rest != "" {
		t.Errorf("then %q", rest)
	}
	h.wantClosed(closeBackendBusy, 1)
	whole.do("+OK\r\n", "SCRIPT", "KILL")
}

// A RESET needs no database either, and leaves none: what follows is asked in database 0.
func TestResetGetsThroughToABusyBackend(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr := redisServer(t)
		h := m.start(t, addr, nil)
		w := h.dial()
		w.do("+OK\r\n", "SET", "a", "zero")
		h.silent(w, []string{"SELECT", "9"}, []string{"SET", "a", "nine"})
		busyScript(t, addr)
		w.do("+RESET\r\n", "RESET")
		w.do("+OK\r\n", "SCRIPT", "KILL")
		eventually(t, "it is answered", func() bool {
			w.send(cmd("GET", "a"))
			got := w.reply()
			if got != bulk("zero") && !strings.HasPrefix(got, "-BUSY ") {
				t.Fatalf("GET a: %q", got)
			}
			return got == bulk("zero")
		})
	})
}

// A RESET that is refused on a connection without the session's database does not leave the session there.
func TestResetThatABusyBackendRefusesKeepsTheDatabase(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	h.silent(w, []string{"SELECT", "7"})
	var refused atomic.Bool
	b.on(func(c *laneConn, args []string) (string, bool) {
		switch args[0] {
		case "SELECT": // the proxy selects the database again after the RESET, and the session ends if it cannot
			return "-BUSY Redis is busy running a script.\r\n", !refused.Load()
		case "RESET":
			refused.Store(true)
			return "-NOPERM no\r\n", true
		}
		return "", false
	})
	w.do("-NOPERM no\r\n", "RESET")
	b.on(nil)
	h.pass(laneBusyRetry + stayInterval)
	w.do(bulk("7 2"), "HGET", "h", "f")
}

func (w *wire) wantBusy() {
	w.t.Helper()
	if got := w.reply(); !strings.HasPrefix(got, "-BUSY Redis is busy") {
		w.t.Errorf("got %q, want -BUSY", got)
	}
}

func busyFunction(t *testing.T, addr string) {
	t.Helper()
	operator, other := dialPlain(t, addr), dialPlain(t, addr)
	operator.do("+OK\r\n", "CONFIG", "SET", "busy-reply-threshold", "1")
	operator.do(bulk("l"), "FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() while true do end end)")
	other.send(cmd("FCALL", "f", "0"))
	eventually(t, "the function keeps the backend", func() bool {
		operator.send(cmd("PING"))
		return strings.HasPrefix(operator.line(), "-BUSY ")
	})
}

// A backend that has as many clients as it takes says so itself, at once, to each client that needs a connection; sessions that have
// one, or share one, go on.
func TestClientsAreToldOfMaxClientsAtOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, addr := range map[string]string{"redis-server": redisServer(t), "Dragonfly": dragonfly(t, proxytest.Options{}).Addr()} {
			t.Run(name, func(t *testing.T) {
				h := m.start(t, addr, func(c *Config) { named(c); c.Recheck, c.Backend.Lanes = (&judgement{}).recheck, 1 })
				operator := dialPlain(t, addr)
				h.wantReady(true, "")
				old := h.dialAs("old")
				old.do("+OK\r\n", "SET", "a", "x")
				old.do(bulk("x"), "GET", "a")
				if m.shared { // it rides a lane
					h.closeOwnOf(old)
					old.do(bulk("x"), "GET", "a")
				}
				clients := 0
				eventually(t, "the backend has noticed who left", func() bool {
					clients = h.Stats().BackendConnections + 2 // the operator's and the prober's
					return (!m.shared || h.ownConnections() == 0) && clientsOf(operator) == clients
				})
				operator.do("+OK\r\n", "CONFIG", "SET", "maxclients", fmt.Sprint(clients))
				const full = "-ERR max number of clients reached\r\n"
				late := h.dialAs("late")
				late.do(full, "PING")
				late.wantCleanEnd()
				h.wantClosed(closeMaxClients, 1)
				old.do(bulk("x"), "GET", "a")
				if m.shared { // what needs a connection of its own is refused, and the session goes on
					old.do(full, "EVALSHA", sha("x"), "0")
					old.do(bulk("x"), "GET", "a")
				}
				h.wantReady(true, "max number of clients")
				if r := h.BackendReady(); r.Reason != "max_clients" {
					t.Errorf("reason %q", r.Reason)
				}
				if n := h.Stats().BackendErrors["max_clients"]; n == 0 {
					t.Errorf("errors %v", h.Stats().BackendErrors)
				}
				if n := strings.Count(h.logs.String(), "maxclients is reached"); n != 1 {
					t.Errorf("%d lines in the log, want one:\n%s", n, h.logs)
				}
				operator.do("+OK\r\n", "CONFIG", "SET", "maxclients", "1000")
				h.dialAs("late").do("+PONG\r\n", "PING")
			})
		}
	})
}

// clientsOf is how many clients the backend has.
func clientsOf(operator *wire) int {
	operator.send(cmd("CLIENT", "LIST"))
	return strings.Count(operator.bulk(), "\n")
}

// reply reads one whole reply.
func (w *wire) reply() string {
	w.t.Helper()
	var r resp.Replies
	var got []byte
	w.SetReadDeadline(time.Now().Add(patience))
	for {
		b, err := w.r.ReadByte()
		if err != nil {
			w.t.Fatalf("got %q, then %v", got, err)
		}
		got = append(got, b)
		if _, done, err := r.Next([]byte{b}); err != nil {
			w.t.Fatalf("got %q: %v", got, err)
		} else if done {
			return string(got)
		}
	}
}

// switched is a backend's address that a test changes.
type switched struct{ at atomic.Pointer[string] }

func switchedTo(addr string) *switched {
	s := new(switched)
	s.to(addr)
	return s
}

func (s *switched) to(addr string) { s.at.Store(&addr) }

func (s *switched) target() (network, addr string, err error) { return backendAt(*s.at.Load())() }
