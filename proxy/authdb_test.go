package proxy

import (
	"strings"
	"testing"

	"dragontls/proxy/proxytest"
)

// howSelected are the ways in which a session comes to database 7. After most of them it keeps its own connection, and after
// some the proxy cannot know its database.
var howSelected = map[string]string{
	"SELECT":          cmd("SELECT", "7"),
	"SELECT in RESP3": cmd("HELLO", "3") + cmd("SELECT", "7"),
	"a big script":    cmd("EVAL", "return redis.call('SELECT', '7')", "0", strings.Repeat("x", 70<<10)),
	"a script":        cmd("EVAL", "return redis.call('SELECT', '7')", "0"),
	"SELECT after a refused command in MULTI":    cmd("MULTI") + cmd("GET") + cmd("SELECT", "7") + cmd("EXEC"),
	"SELECT on an own connection for life":       cmd("CLIENT", "ID") + cmd("SELECT", "7"),
	"the same in RESP3, and a long name":         cmd("HELLO", "3", "SETNAME", strings.Repeat("n", 3000)) + cmd("CLIENT", "ID") + cmd("SELECT", "7"),
	"SELECT, on a connection that is subscribed": cmd("HELLO", "3") + cmd("SELECT", "7") + cmd("SUBSCRIBE", "c") + cmd("UNSUBSCRIBE", "c"),
}

// On Dragonfly AUTH also changes the connection's database. The proxy authenticates again after a RESET that was refused: the
// session must stay in its database.
func TestRefusedResetKeepsTheDatabase(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, user := range []proxytest.User{
			{Name: "web"},
			{Name: "noreset", Deny: []string{"reset"}},
			{Name: "two", Deny: []string{"reset"}, Database: 2},
			{Name: "noauth", Deny: []string{"reset", "auth"}},
			{Name: "little", Deny: []string{"reset", "auth", "client"}},
		} {
			for name, selects := range howSelected {
				t.Run(user.Name+", "+name, func(t *testing.T) {
					t.Parallel()
					staysInDatabase(t, m, user, selects)
				})
			}
		}
	})
}

func staysInDatabase(t *testing.T, m mode, user proxytest.User, selects string) {
	user.Password = "pw"
	d := dragonfly(t, proxytest.Options{RequirePass: "top", Users: []proxytest.User{user}})
	h := m.start(t, d.Addr(), asUser(user.Name, user.Password))
	w := h.dial()
	w.send(selects + cmd("SET", "a", "1") + cmd("ECHO", "selected"))
	w.until(bulk("selected"))
	resets := map[string]string{cmd("RESET", "x"): "-ERR wrong number of arguments for 'reset' command\r\n"}
	if user.Name != "web" && !strings.Contains(selects, "SUBSCRIBE") { // there an error to RESET ends the session
		resets[cmd("RESET")] = "-NOPERM " + user.Name + " has no ACL permissions\r\n"
	}
	for reset, refusal := range resets {
		w.send(reset + cmd("GET", "a") + cmd("SET", reset, "1"))
		w.want(refusal + "$1\r\n1\r\n+OK\r\n")
		h.pass(stayInterval) // in mode shared, a session that need not use its own connection leaves it
		w.do("$1\r\n1\r\n", "GET", "a")
		if _, there := d.String(7, reset); !there {
			t.Errorf("after %q a SET goes to another database than 7", reset)
		}
		w.actsAs(user.Name)
	}
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// The same inside a transaction, of which nothing runs after the refused RESET.
func TestRefusedResetInsideATransactionKeepsTheDatabase(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{RequirePass: "top", Users: []proxytest.User{{Name: "web", Password: "pw", Deny: []string{"reset"}}}})
		redis := redisServer(t, "--rename-command", "RESET", "", "--user", "web", "on", ">pw", "~*", "&*", "+@all", "--requirepass", "top")
		for name, addr := range map[string]string{"redis": redis, "dragonfly": d.Addr()} {
			for _, reset := range [][]string{{"RESET"}, {"RESET", "x"}} {
				h := m.start(t, addr, asUser("web", "pw"))
				w := h.dial()
				w.do("+OK\r\n", "SELECT", "7")
				w.do("+OK\r\n", "SET", "a", "1")
				w.do("+OK\r\n", "MULTI")
				w.do("+QUEUED\r\n", "SET", "a", "2")
				w.send(cmd(reset...))
				if got := w.line(); !strings.HasPrefix(got, "-") {
					t.Errorf("%s: %q is answered %q", name, reset, got)
				}
				w.send(cmd("EXEC"))
				if got := w.line(); !strings.HasPrefix(got, "-EXECABORT") {
					t.Errorf("%s, %q: EXEC is answered %q", name, reset, got)
				}
				w.do("$1\r\n1\r\n", "GET", "a")
				w.actsAs("web")
			}
		}
	})
}

// A refused RESET whose session's database cannot be learned ends the session: another database would be worse.
func TestRefusedResetEndsASessionWhoseDatabaseIsUnknown(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{RequirePass: "top", Users: []proxytest.User{{Name: "web", Password: "pw", Deny: []string{"reset", "client"}}}})
		h := m.start(t, d.Addr(), asUser("web", "pw"))
		w := h.dial()
		w.do("+OK\r\n", "EVAL", "return redis.call('SELECT', '7')", "0")
		w.do("+OK\r\n", "SET", "a", "1")
		w.send(cmd("RESET") + cmd("SET", "b", "1"))
		if got := w.wantEnd(); !strings.HasPrefix(got, "-NOPERM ") || strings.Contains(got, "OK") {
			t.Errorf("got %q", got)
		}
		h.wantClosed(closeReset, 1)
		for db := range 8 {
			if _, there := d.String(db, "b"); there {
				t.Errorf("the SET after RESET ran in database %d", db)
			}
		}
	})
}

// A client that may authenticate itself is in the database where the backend puts it: on Dragonfly the first one, on Redis
// the one before. That holds on whatever connection its commands go.
func TestDatabaseAfterTheClientsOwnAuthIsTheBackends(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for backend, after := range map[string]string{"redis": "7", "dragonfly": "0"} {
			for name, auth := range map[string]string{
				"AUTH":              cmd("AUTH", "other", "otherpw"),
				"HELLO":             cmd("HELLO", "2", "AUTH", "other", "otherpw"),
				"HELLO with a name": cmd("HELLO", "3", "SETNAME", "n", "AUTH", "other", "otherpw"),
				"AUTH in MULTI":     cmd("MULTI") + cmd("AUTH", "other", "otherpw") + cmd("EXEC"),
			} {
				if backend == "redis" && name == "AUTH in MULTI" {
					continue // it refuses that
				}
				t.Run(backend+", "+name, func(t *testing.T) {
					t.Parallel()
					ownAuthMoves(t, m, backend, auth, after)
				})
			}
		}
	})
}

func ownAuthMoves(t *testing.T, m mode, backend, auth, after string) {
	addr := ""
	if backend == "redis" {
		addr = redisWithUsers(t, "web", "other")
	} else {
		addr = dragonflyWithUsers(t, "web", "other").Addr()
	}
	direct := dialPlain(t, addr)
	direct.do("+OK\r\n", "AUTH", "web", "webpw")
	j := &judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw"), ClientAuth: true}}}
	for name, change := range map[string]func(*Config){"no injected user": nil, "client_auth": mappedTo(j)} {
		h := m.start(t, addr, change)
		w := h.dial()
		if change == nil {
			w.do("+OK\r\n", "AUTH", "web", "webpw")
		}
		for _, c := range []*wire{w, direct} {
			c.do("+OK\r\n", "SELECT", "7")
			c.do("+OK\r\n", "SET", "where", "7")
			c.do("+OK\r\n", "SELECT", "0")
			c.do("+OK\r\n", "SET", "where", "0")
			c.do("+OK\r\n", "SELECT", "7")
			c.send(auth + cmd("ECHO", "authenticated"))
			c.until(bulk("authenticated"))
			for range 2 {
				c.do(bulk(after), "GET", "where")
				h.pass(stayInterval)
			}
			c.actsAs("other")
			c.send(cmd("RESET"))
			c.want("+RESET\r\n")
		}
		direct.do("+OK\r\n", "AUTH", "web", "webpw")
		if name == "client_auth" {
			w.do(bulk("0"), "GET", "where")
			w.actsAs("web")
		}
		if n := len(h.Stats().SessionsClosed); n != 0 {
			t.Errorf("%s: sessions closed: %v", name, h.Stats().SessionsClosed)
		}
	}
}

// A HELLO may change the user and fail all the same: the session then keeps the connection on which that happened.
func TestFailedHelloThatAuthenticatesIsNotUndone(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := &judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw"), ClientAuth: true}}}
		addr := redisWithUsers(t, "web", "other")
		h := m.start(t, addr, mappedTo(j))
		w := h.dial()
		w.do("+OK\r\n", "SELECT", "7")
		w.send(cmd("HELLO", "2", "AUTH", "other", "otherpw", "SETNAME", "a b"))
		if got := w.line(); !strings.HasPrefix(got, "-") {
			t.Fatalf("got %q", got)
		}
		h.pass(stayInterval)
		direct := dialPlain(t, addr)
		direct.do("+OK\r\n", "AUTH", "web", "webpw")
		direct.send(cmd("HELLO", "2", "AUTH", "other", "otherpw", "SETNAME", "a b") + cmd("ACL", "WHOAMI"))
		direct.line()
		direct.line()
		w.actsAs(strings.TrimSpace(direct.line()))
	})
}
