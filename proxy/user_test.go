package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

const webPassword = "web's secret"

func asUser(user, password string) func(*Config) {
	return func(c *Config) {
		c.Backend.Credentials = func() (string, string, error) { return user, password, nil }
	}
}

// userBackend is a Dragonfly with a password for default and the users web (the proxy's), other (a client knows its
// password) and noreset.
func userBackend(t testing.TB) *proxytest.Dragonfly {
	return dragonfly(t, proxytest.Options{RequirePass: "top", LogLimit: 1 << 20, Users: []proxytest.User{
		{Name: "web", Password: webPassword}, {Name: "other", Password: "o"},
		{Name: "noreset", Password: webPassword, Deny: []string{"reset"}},
	}})
}

// checkUser holds that on every connection nothing but the proxy's own AUTH comes first, and first behind RESET, and
// that nothing else ever changes the user.
func checkUser(t testing.TB, d *proxytest.Dragonfly, user string) {
	t.Helper()
	want := "AUTH " + user + " " + webPassword
	authenticated := make(map[int]bool)
	for i, c := range d.Commands() {
		name, _, _ := strings.Cut(strings.ToUpper(string(c.Args[0])), "\x00") // as Redis may read it
		switch {
		case c.String() == want:
			authenticated[c.Conn] = true
			continue
		case name == "PING" && len(c.Args) == 1 && !authenticated[c.Conn]:
			continue // asks whether the backend serves everybody; a client's PING would be answered -NOAUTH
		case !authenticated[c.Conn]:
			t.Errorf("connection %d: %.100q without AUTH, all: %.1500q", c.Conn, c, d.Commands()[max(0, i-12):i])
		case name == "AUTH":
			t.Errorf("connection %d: %q", c.Conn, c)
		case name == "HELLO" && bytes.Contains(bytes.ToUpper(bytes.Join(c.Args, []byte(" "))), []byte(" AUTH ")):
			t.Errorf("connection %d: %q", c.Conn, c)
		case name == "RESET" && len(c.Args) == 1:
			authenticated[c.Conn] = false
		}
	}
}

// attempts to become somebody else; big ones are streamed.
var attempts = []string{
	cmd("AUTH", "other", "o"), cmd("auth", "top"), cmd("AuTh", "default", "top"), cmd("AUTH"), cmd("AUTH other o"), cmd("AUTH\tother", "o"),
	cmd(" AUTH", "other", "o"), "AUTH other o\r\n", "auth top\n", "  AUTH   other   o  \r\n", "*03\r\n$04\r\nAUTH\r\n$+5\r\nother\r\n$01\r\no\r\n",
	cmd("HELLO", "3", "AUTH", "other", "o"), cmd("HELLO", "2", "auth", "default", "top"), cmd("hello", "3", "SETNAME", "x", "AuTh", "other", "o"),
	cmd("HELLO", "3", "AUTH", "other", "o", "SETNAME", "x"), "HELLO 3 AUTH other o\r\n", "*+5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$5\r\nother\r\n$1\r\no\r\n",
	cmd("HELLO 3 AUTH other o"), cmd("HELLO 3", "AUTH", "other", "o"), cmd("HELLO", "AUTH", "other", "o"),
	cmd("AUTH\x00", "other", "o"), cmd("AUTH\x00x"+tooLong, "other", "o"), cmd("AUTH\x00x", "other"+tooLong, "o"), cmd("HELLO", "2", "AUTH\x00", "other", "o"),
	cmd("HELLO\x00x"+tooLong, "2", "AUTH", "other", "o"), cmd("HELLO", "2\x00"+tooLong, "AUTH", "other", "o"), cmd("RESET\x00" + tooLong), cmd("RESET\x00"),
	cmd("AUTH", "other", strings.Repeat("o", 70<<10)), cmd("AUTH", strings.Repeat("o", 70<<10), "o"),
	cmd("HELLO", "3", "SETNAME", strings.Repeat("n", 70<<10), "AUTH", "other", "o"), cmd("HELLO", "3", "AUTH", "other", "o", "SETNAME", strings.Repeat("n", 70<<10)),
	cmd("RESET"), cmd("reset"), cmd("RESET"), cmd("RESET") + cmd("GET", "k"), "RESET\r\n", cmd("RESET", "x"), cmd("RESET "), cmd(" RESET"), "*01\r\n$05\r\nRESET\r\n",
	cmd("RESET", strings.Repeat("x", 70<<10)), cmd("MULTI"), cmd("EXEC"), cmd("DISCARD"), cmd("MULTI") + cmd("AUTH", "other", "o") + cmd("EXEC"),
	cmd("MULTI") + cmd("HELLO", "3", "AUTH", "other", "o") + cmd("EXEC"), cmd("MULTI") + cmd("RESET"), cmd("MULTI") + cmd("GET"),
	cmd("SUBSCRIBE", "c"), cmd("UNSUBSCRIBE"), cmd("SUBSCRIBE", "c") + cmd("RESET"), cmd("HELLO", "3"), cmd("HELLO", "2"), cmd("MONITOR"),
	cmd("x\r\n-ERR no\r\n+RESET\r\n+OK\r\n"), cmd("x\r\n+RESET\r\n+OK"), cmd("x\r\n-NOPERM y"), cmd("x\r\n-NOPERM y\r\n+OK") + cmd("RESET"),
	cmd("x\r\n+RESET") + cmd("RESET") + cmd("GET", "k"), cmd(strings.Repeat("x", 60000) + "\r\n+RESET\r\n+OK"), cmd(strings.Repeat("x", 63<<10)+"\r\n-NOPERM y\r\n+OK") + cmd("RESET"),
	cmd(strings.Repeat("x", 70<<10)+"\r\n+RESET") + cmd("RESET"), cmd("SET", "k", "v"), cmd("GET", "k"), cmd("INCR", "n"), cmd("GET"), cmd("BLPOP", "l", "0.001"),
	cmd("ECHO", "x\r\n+RESET\r\n"), cmd("CLIENT", "REPLY", "OFF"), cmd("CLIENT", "REPLY", "ON"), cmd("CLIENT", "TRACKING", "ON"), cmd("QUIT"), "*x\r\n",
}

func TestNoSequenceReachesAnotherUser(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, user := range []string{"web", "noreset"} {
			t.Run("dragonfly as "+user, func(t *testing.T) {
				d := userBackend(t)
				whose(t, m.start(t, d.Addr(), endsSoon(asUser(user, webPassword))), "$"+itoa(len("User is "+user))+"\r\nUser is "+user+"\r\n", nil)
				checkUser(t, d, user)
			})
			t.Run("redis as "+user, func(t *testing.T) {
				rule := "+@all"
				if user == "noreset" {
					rule = "+@all -reset"
				}
				addr := redisServer(t, append([]string{"--requirepass", "top", "--user", "other", "on", ">o", "~*", "&*", "+@all",
					"--user", user, "on", ">websecret", "~*", "&*"}, strings.Fields(rule)...)...)
				whose(t, m.start(t, addr, endsSoon(asUser(user, "websecret"))), "$"+itoa(len(user))+"\r\n"+user+"\r\n", nil)
			})
		}
		t.Run("dragonfly as default", func(t *testing.T) {
			d := userBackend(t)
			whose(t, m.start(t, d.Addr(), endsSoon(asUser("default", "top"))), "$15\r\nUser is default\r\n", nil)
		})
	})
}

func itoa(n int) string { return strconv.Itoa(n) }

// endsSoon is the configuration of whose: a session whose replies nobody counts ends a moment after its client has.
func endsSoon(change func(*Config)) func(*Config) {
	return func(c *Config) { change(c); c.eofTimeout = 100 * time.Millisecond }
}

// whose plays random attempts and asks, where the session is still there, whose it is.
func whose(t *testing.T, h *harness, want string, more []string) {
	seed := testSeed(t)
	t.Logf("TEST_SEED=%d", seed)
	all := append(append([]string(nil), attempts...), more...)
	r := rand.New(rand.NewPCG(seed, 2))
	alive := 0
	for n := range rounds(t, 100) {
		w := h.dial()
		var sent []string
		for range 1 + r.IntN(8) {
			sent = append(sent, all[r.IntN(len(all))])
		}
		const last = "behind all that"
		b := []byte(strings.Join(sent, "") + cmd("EXEC") + cmd("HELLO", "2") + cmd("ACL", "WHOAMI") + cmd("ECHO", last))
		done := make(chan struct{})
		cuts := rand.New(rand.NewPCG(seed, uint64(n)))
		go func() { // ends when all is written or w closed
			defer close(done)
			for len(b) > 0 {
				k := 1 + cuts.IntN(len(b))
				if _, err := w.Write(b[:k]); err != nil {
					return
				}
				b = b[k:]
			}
			w.endWrites()
		}()
		got := w.until(last)
		w.Close()
		<-done
		// Whoever was asked says the same name, in whatever order forged replies put it.
		for _, name := range []string{"User is ", "$5\r\nother\r\n$15\r\n" + last, "$7\r\ndefault\r\n$15\r\n" + last} {
			for rest := got; ; {
				i := strings.Index(rest, name)
				if i < 0 {
					break
				}
				from := max(0, i-5)
				if name != "User is " || !strings.HasPrefix(rest[strings.LastIndex(rest[:i+1], "$"):], want) {
					t.Fatalf("seed %d, round %d: another user: %q\nsent %.2000q", seed, n, rest[from:min(len(rest), i+40)], sent)
				}
				rest = rest[i+len(name):]
			}
		}
		if strings.Contains(got, want) {
			alive++
		}
	}
	if alive == 0 {
		t.Error("no session lived to the end: this test proves nothing")
	}
}

// endWrites tells the proxy that the client sends nothing more, even where it reads nothing more.
func (w *wire) endWrites() {
	c := w.Conn.(*tls.Conn)
	c.CloseWrite()
	c.NetConn().(*net.TCPConn).CloseWrite()
}

// until reads to the sentinel or the end. Where replies are off or refused the sentinel does not come, but the client has
// said that it sends nothing more, and the session ends.
func (w *wire) until(last string) string {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	var got []byte
	buf := make([]byte, 64<<10)
	for !bytes.Contains(got, []byte(last)) {
		n, err := w.r.Read(buf)
		got = append(got, buf[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Fatalf("the session does not end, after %.2000q", got)
		}
		if err != nil {
			break
		}
	}
	return string(got)
}

// A forged reply in front of that to RESET, written in pieces that the proxy reads one by one: all before RESET has come,
// all when it has, or one at each command that comes.
func TestForgedRepliesToResetKeepTheUser(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		came := 0 // RESETs
		for _, forged := range []string{
			"-ERR unknown command `X\r\n|-ERR no\r\n|+OK\r\n", "-ERR unknown command `X\r\n|-ERR no\r\n|+RESET\r\n|+OK\r\n",
			"-ERR unknown command `X\r\n|+RESET\r\n|+OK\r\n", "-ERR unknown command `X\r\n|+RE|SET\r\n", "+OK\r\n|-NOPERM x\r\n|+OK\r\n+OK\r\n",
			"-ERR x\r\n-NOPERM y\r\n|+OK\r\n|+RESET\r\n",
		} {
			for _, mode := range []string{"", cmd("SUBSCRIBE", "c")} {
				for _, at := range []string{"FORGE", "RESET", "each"} {
					came += forgeReset(t, m, mode, strings.Split(forged, "|"), at)
				}
			}
		}
		if came == 0 {
			t.Error("no RESET came to the backend: this test proves nothing")
		}
	})
}

// forgeReset plays one attempt to the end of its session, and returns how many RESETs came to the backend.
func forgeReset(t *testing.T, m mode, subscribe string, pieces []string, at string) (resets int) {
	d := userBackend(t)
	h := m.start(t, d.Addr(), asUser("web", webPassword))
	forged := make(map[int]int) // pieces that were sent, by the connection; one alone is ever asked to
	var mu sync.Mutex
	d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) {
		mu.Lock()
		defer mu.Unlock()
		name, sent := string(args[0]), forged[conn]
		if name == "RESET" {
			resets++
		}
		until := sent
		switch {
		case name == "FORGE":
			until = 1
			if at == "FORGE" {
				until = len(pieces)
			}
		case sent == 0: // another connection, or before FORGE
		case at == "each":
			until = min(sent+1, len(pieces))
		case name == at:
			until = len(pieces)
		}
		for _, p := range pieces[sent:until] {
			d.Send(conn, []byte(p))
			h.takenIn()
		}
		forged[conn] = until
		return nil, name == "FORGE"
	})
	w := h.dial()
	w.send(subscribe + cmd("FORGE") + cmd("RESET") + cmd("SET", "k", "v") + cmd("GET", "k"))
	w.endWrites()
	w.wantEnd()
	eventually(t, "its connections are gone", func() bool { return h.Stats().Sessions == 0 && h.ownConnections() == 0 })
	checkUser(t, d, "web")
	mu.Lock()
	defer mu.Unlock()
	return resets
}

// takenIn waits until the sessions have read what has come from the backend.
func (h *harness) takenIn() {
	h.each(func(s *session) {
		if up, _ := s.upstreamNow(); up != nil {
			for !s.ended() && unread(up.Socket.Conn.(*net.TCPConn)) > 0 {
				runtime.Gosched()
			}
		}
	})
}

// Pushes come when they like: they are no reply to the AUTH behind a refused RESET, and reach the client in their place.
func TestPushesAroundARefusedResetReachTheClient(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const push = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
		for name, c := range map[string]struct{ reset, auth, echo string }{
			"none":                  {"-ERR no\r\n", "+OK\r\n", ""},
			"behind the error":      {"-ERR no\r\n" + push + push, "+OK\r\n", ""},
			"before the OK":         {"-ERR no\r\n", push + push + "+OK\r\n", ""},
			"behind the OK":         {"-ERR no\r\n", "+OK\r\n" + push, ""},
			"cut by AUTH":           {"-ERR no\r\n" + push[:9], push[9:] + "+OK\r\n", ""},
			"cut in the first byte": {"-ERR no\r\n" + push[:1], push[1:] + "+OK\r\n", ""},
			"open behind the OK":    {"-ERR no\r\n", push + "+OK\r\n" + push[:12], push[12:]},
			"everywhere":            {"-ERR no\r\n" + push + push[:20], push[20:] + push + "+OK\r\n" + push[:3], push[3:] + push},
		} {
			t.Run(name, func(t *testing.T) {
				d := userBackend(t)
				var refused atomic.Bool
				d.SetOnCommand(func(_ int, args [][]byte) ([]byte, bool) {
					switch string(args[0]) {
					case "RESET":
						refused.Store(true)
						return []byte(c.reset), true
					case "AUTH":
						return []byte(c.auth), refused.Load()
					case "ECHO":
						return []byte(c.echo + "$1\r\na\r\n"), true
					}
					return nil, false
				})
				w := m.start(t, d.Addr(), asUser("web", webPassword)).dial()
				w.send(cmd("RESET") + cmd("ECHO", "a"))
				w.want(c.reset + strings.Replace(c.auth, "+OK\r\n", "", 1) + c.echo + "$1\r\na\r\n")
				w.do("$11\r\nUser is web\r\n", "ACL", "WHOAMI")
				checkUser(t, d, "web")
			})
		}
	})
}

func TestBackendThatServesEverybodyIsRefusedForNamedUsers(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{Users: []proxytest.User{{Name: "web", Password: webPassword}}})
		h := m.start(t, d.Addr(), asUser("web", webPassword))
		w := h.dial()
		w.send(cmd("GET", "k"))
		if got := w.wantEnd(); !strings.HasPrefix(got, "-ERR dragontls: ") {
			t.Errorf("got %q", got)
		}
		eventually(t, "not ready, and why", func() bool {
			r := h.BackendReady()
			return !r.OK && r.Reason == "unauthenticated_access" && strings.Contains(r.Detail, "did not authenticate")
		})
		for _, c := range d.Commands() {
			if string(c.Args[0]) == "GET" {
				t.Errorf("ran: %s", c)
			}
		}
	})
}

func TestWithoutCredentialsClientsAuthenticateThemselves(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := userBackend(t)
		w := m.start(t, d.Addr(), nil).dial()
		w.do("-NOAUTH Authentication required.\r\n", "GET", "k")
		w.do("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "other", "wrong")
		w.do("+OK\r\n", "auth", "other", "o")
		w.do("$13\r\nUser is other\r\n", "ACL", "WHOAMI")
		w.do("+RESET\r\n", "RESET")
		w.do("-NOAUTH Authentication required.\r\n", "GET", "k")
		w.send(cmd("HELLO", "2", "AUTH", "default", "top", "SETNAME", "me"))
		if got := w.line(); got != "*14\r\n" {
			t.Fatalf("got %q", got)
		}
		for !strings.HasPrefix(w.line(), "master") {
		}
		w.do("$15\r\nUser is default\r\n", "ACL", "WHOAMI")
		w.do("$2\r\nme\r\n", "CLIENT", "GETNAME")
	})
}

// A refused command inside MULTI dooms it, however it goes on.
func TestDoomedTransactionNeverRuns(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const refused, abort = "-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n", "-EXECABORT Transaction discarded because of previous errors"
		deny := func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} }
		shutdown := cmd("SHUTDOWN")
		for _, backend := range []string{"redis", "dragonfly"} {
			for _, c := range []struct{ name, middle, end, lastLine string }{
				{"EXEC", shutdown, cmd("EXEC"), abort + "\r\n"},
				{"inline EXEC", shutdown, "exec\r\n", abort + "\r\n"},
				{"two refusals", shutdown + shutdown, cmd("EXEC"), abort + "\r\n"},
				{"inline refusal", "shutdown\r\n", cmd("EXEC"), abort + "\r\n"},
				{"quotes", "SET a \"b c\"\r\n", cmd("EXEC"), abort + "\r\n"},
				{"big refusal", cmd("SHUTDOWN", strings.Repeat("x", 100<<10)), cmd("EXEC"), abort + "\r\n"},
				{"DISCARD", shutdown, cmd("DISCARD"), "+OK\r\n"},
				{"RESET", shutdown, cmd("RESET"), "+RESET\r\n"},
				{"EXEC x, then EXEC", shutdown + cmd("EXEC", "x"), cmd("EXEC"), ""},
				{"EXEC in one word, then refusal", cmd("EXEC x") + shutdown, cmd("EXEC"), abort + "\r\n"},
				{"DISCARD in one word, then refusal", cmd("DISCARD ") + shutdown, cmd("EXEC"), abort + "\r\n"},
				{"nested MULTI", shutdown + cmd("MULTI"), cmd("EXEC"), ""},
				{"error behind", shutdown + cmd("GET"), cmd("EXEC"), ""},
				{"error before", cmd("GET") + shutdown, cmd("EXEC"), ""},
				{"unknown command", shutdown + cmd("NOSUCH"), cmd("EXEC"), abort + "\r\n"},
			} {
				t.Run(backend+" "+c.name, func(t *testing.T) {
					addr := ""
					if backend == "redis" {
						addr = redisServer(t)
					} else {
						addr = dragonfly(t, proxytest.Options{}).Addr()
					}
					w := m.start(t, addr, deny).dial()
					w.send(cmd("MULTI") + cmd("SET", "before", "1") + c.middle + c.end + cmd("ECHO", "end of it"))
					var lines []string
					for l := w.line(); l != "end of it\r\n"; l = w.line() {
						lines = append(lines, l)
					}
					last := lines[len(lines)-2] // in front of ECHO's header
					if c.lastLine != "" && last != c.lastLine || c.lastLine == "" && last[0] != '-' {
						t.Errorf("last line %q, want %q: %q", last, c.lastLine, lines)
					}
					if !strings.Contains(c.name, "quotes") && !strings.Contains(strings.Join(lines, ""), refused) {
						t.Errorf("no refusal: %q", lines)
					}
					w.do(":0\r\n", "EXISTS", "before")
					w.send(cmd("MULTI") + cmd("SET", "next", "1") + cmd("EXEC"))
					w.want("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
					w.do(":0\r\n", "EXISTS", "before")
				})
			}
		}
	})
}
