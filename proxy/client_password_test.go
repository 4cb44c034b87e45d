package proxy

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// top is the password of the user default of dragonflyWithUsers and redisWithUsers.
const top = "top"

// actors are configurations in which dragontls authenticates, with the user and password that it then uses.
func actors() map[string]struct {
	change         func(*Config)
	user, password string
} {
	type actor = struct {
		change         func(*Config)
		user, password string
	}
	return map[string]actor{
		"a password alone": {asUser("", top), "default", top},
		"the user default": {asUser("default", top), "default", top},
		"a user":           {asUser("web", "webpw"), "web", "webpw"},
		"the users file":   {mappedTo(&judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw")}}}), "web", "webpw"},
		"and for the prober": {func(c *Config) {
			asUser("", top)(c)
			mappedTo(&judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw")}}})(c)
		}, "web", "webpw"},
	}
}

// wantNoLoginPassed wants no AUTH on the backend but the one with which dragontls begins each connection.
func wantNoLoginPassed(t *testing.T, d *proxytest.Dragonfly) {
	t.Helper()
	seen := map[int]bool{}
	for _, c := range d.Commands() {
		switch name := strings.ToUpper(string(c.Args[0])); {
		case strings.HasPrefix(name, "AUTH") && seen[c.Conn], name == "HELLO" && strings.Contains(strings.ToUpper(c.String()), "AUTH"):
			t.Errorf("connection %d got %q", c.Conn, c)
		case strings.HasPrefix(name, "AUTH"):
			seen[c.Conn] = true
		}
	}
}

// withoutID returns a reply to HELLO without the id of its connection.
func withoutID(reply string) string {
	before, rest, _ := strings.Cut(reply, "$2\r\nid\r\n:")
	_, after, _ := strings.Cut(rest, "\r\n")
	return before + after
}

// answer returns the reply to a command, up to an ECHO that follows it.
func (w *wire) answer(args ...string) string {
	w.t.Helper()
	const end = "$9\r\nand after\r\n"
	w.send(cmd(args...) + cmd("ECHO", "and after"))
	return strings.TrimSuffix(w.until("\r\nand after\r\n"), end)
}

func TestPasswordOfTheProxyIsAnsweredAsByTheBackend(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, backend := range []string{"redis", "dragonfly"} {
			for name, a := range actors() {
				t.Run(backend+" "+name, func(t *testing.T) {
					t.Parallel()
					at, other, passed := "", "", func() {}
					if backend == "redis" {
						at = redisWithUsers(t, "web")
						other = at
					} else {
						d := dragonflyWithUsers(t, "web")
						at, other, passed = d.Addr(), dragonflyWithUsers(t, "web").Addr(), func() { wantNoLoginPassed(t, d) }
					}
					h := m.start(t, at, a.change)
					logins := [][]string{
						{"AUTH", a.user, a.password}, {"auTH", a.user, a.password},
						{"HELLO", "3", "AUTH", a.user, a.password}, {"hello", "2", "auth", a.user, a.password},
						{"HELLO", "3", "AUTH", a.user, a.password, "SETNAME", "n"}, {"HELLO", "2", "SETNAME", "n", "AUTH", a.user, a.password},
						{"HELLO", "4", "AUTH", a.user, a.password}, {"HELLO", "x", "AUTH", a.user, a.password}, {"HELLO", "4", "AUTH", a.user, "wrong"},
						{"HELLO", "3", "AUTH", a.user, a.password, "SETNAME", "with blank"},
						{"AUTH"}, {"AUTH", "a", "b", "c"},
					}
					if a.user == "default" {
						logins = append(logins, []string{"AUTH", a.password})
					}
					for _, login := range logins {
						direct, w := dialPlain(t, other), h.dial()
						direct.do("+OK\r\n", "AUTH", a.user, a.password)
						if got, want := withoutID(w.answer(login...)), withoutID(direct.answer(login...)); got != want {
							t.Errorf("%q: got %q, want %q", login, got, want)
						}
						w.actsAs(a.user)
						if got, want := w.answer("CLIENT", "GETNAME"), direct.answer("CLIENT", "GETNAME"); slices.Contains(login, "SETNAME") && got != want {
							t.Errorf("%q: named %q, want %q", login, got, want)
						}
						w.Close()
						direct.Close()
					}
					passed()
					if st := h.Stats(); st.PasswordsWrong != 0 || st.PasswordsRight < 7 {
						t.Errorf("counted %d right, %d wrong", st.PasswordsRight, st.PasswordsWrong)
					}
				})
			}
		}
	})
}

func TestAnotherPasswordIsWrong(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, a := range actors() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				d := dragonflyWithUsers(t, "web", "other")
				h := m.start(t, d.Addr(), a.change)
				logins := [][]string{
					{"AUTH", a.user, ""}, {"AUTH", ""}, {"AUTH", "", a.password}, {"AUTH", "other", "otherpw"}, {"AUTH", "nobody", a.password},
					{"AUTH", a.user, a.password + "x"}, {"AUTH", a.user, a.password[1:]}, {"AUTH", a.user, strings.ToUpper(a.password)},
					{"AUTH", a.user, a.password + "\x00"}, {"AUTH", a.user + "\x00", a.password}, {"AUTH", a.user + "\r\n", a.password},
					{"AUTH", strings.ToUpper(a.user), a.password}, {"AUTH", a.user + a.password, ""}, {"AUTH", "", a.user + a.password},
					{"HELLO", "3", "AUTH", "other", "otherpw"}, {"HELLO", "2", "SETNAME", "n", "AUTH", a.user, "x"}, {"HELLO", "+3", "AUTH", a.user, "x"},
					{"AUTH", a.user, strings.Repeat("x", 60<<10)},
				}
				if a.user != "default" {
					logins = append(logins, []string{"AUTH", a.password}, []string{"AUTH", top})
				}
				for _, login := range logins {
					w := h.dial()
					w.do(string(textWrongPass), login...)
					w.actsAs(a.user)
					w.Close()
				}
				wantNoLoginPassed(t, d)
				if st := h.Stats(); st.PasswordsWrong != uint64(len(logins)) || st.PasswordsRight != 0 {
					t.Errorf("counted %d right, %d wrong of %d", st.PasswordsRight, st.PasswordsWrong, len(logins))
				}
			})
		}
	})
}

func TestLoginsThatAreRefusedAsEver(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyWithUsers(t, "web")
		h := m.start(t, d.Addr(), asUser("web", "webpw"))
		for _, login := range [][]string{
			{"HELLO", "AUTH", "web", "webpw"}, {"HELLO", "3", "AUTH", "web"}, {"HELLO", "3", "AUTH"}, {"HELLO", "3", "x", "AUTH", "web", "webpw"},
			{"HELLO", "3", "AUTH", "web", "webpw", "x"}, {"HELLO", "3", "AUTH", "web", "x", "AUTH", "web", "webpw"}, {"HELLO", "3", "SETNAME", "auth", "AUTH", "web", "webpw"}, {"HELLO", "2", "AUTH\x00", "web", "webpw"},
			{"AUTH web webpw"}, {" AUTH", "web", "webpw"}, {"HELLO 3", "AUTH", "web", "webpw"},
		} {
			w := h.dial()
			w.do(textOwnAuth, login...)
			w.actsAs("web")
			w.Close()
		}
		w := h.dial()
		w.do(textName, "AUTH\x00", "web", "webpw")
		w.do(textTooLong, "AUTH", "web", tooLong)
		// The transaction is doomed, in one batch and in several.
		w.send(cmd("MULTI") + cmd("AUTH", "web", "webpw") + cmd("SET", "k", "v") + cmd("EXEC"))
		w.want("+OK\r\n" + textOwnAuth + "+QUEUED\r\n" + string(textExecAbort))
		w.do("+OK\r\n", "MULTI")
		w.do(textOwnAuth, "HELLO", "3", "AUTH", "web", "webpw")
		w.do("+QUEUED\r\n", "SET", "k", "v")
		w.do(string(textExecAbort), "EXEC")
		w.do("+OK\r\n", "AUTH", "web", "webpw")
		w.send(cmd("SUBSCRIBE", "c"))
		w.want("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
		w.send(cmd("AUTH", "web", "webpw"))
		if got := w.wantEnd(); got != textOwnAuth {
			t.Errorf("got %q", got)
		}
		h.wantClosed(closeRefused, 1)
		if _, ok := d.String(0, "k"); ok {
			t.Error("a doomed transaction has run")
		}
		wantNoLoginPassed(t, d)
	})
}

func TestPasswordsAreRefusedWhereSoConfigured(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyWithUsers(t, "web")
		h := m.start(t, d.Addr(), func(c *Config) { asUser("web", "webpw")(c); c.Backend.RefusePasswords = true })
		w := h.dial()
		for _, login := range [][]string{{"AUTH", "web", "webpw"}, {"AUTH", "web", "x"}, {"HELLO", "3", "AUTH", "web", "webpw"}, {"AUTH"}, {"AUTH", "a", "b", "c"}} {
			w.do(textOwnAuth, login...)
		}
		w.actsAs("web")
		wantNoLoginPassed(t, d)
		if st := h.Stats(); st.PasswordsRight+st.PasswordsWrong != 0 || st.CommandsLocal["AUTH"] != 4 {
			t.Errorf("counted %d, %d, %v", st.PasswordsRight, st.PasswordsWrong, st.CommandsLocal)
		}
	})
}

// What clients send at once when they connect, however it is cut.
func TestPipelineThatBeginsWithALogin(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisWithUsers(t), asUser("", top))
		for _, login := range []string{cmd("AUTH", top), "AUTH " + top + "\r\n", "*02\r\n$4\r\nAUTH\r\n$3\r\ntop\r\n"} {
			sent := login + cmd("SELECT", "2") + cmd("SET", "k", "v") + login + cmd("GET", "k") + cmd("AUTH", "wrong") + cmd("GET", "k") + login + cmd("RESET") + login + cmd("GET", "k")
			want := "+OK\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\nv\r\n" + string(textWrongPass) + "$1\r\nv\r\n+OK\r\n+RESET\r\n+OK\r\n$-1\r\n"
			for _, piece := range []int{1, 7, len(sent)} {
				w := h.dial()
				for rest := sent; rest != ""; {
					n := min(piece, len(rest))
					w.send(rest[:n])
					rest = rest[n:]
				}
				w.want(want)
				w.Close()
			}
		}
		// The database of the session stays, as on Redis, and so does its protocol.
		w := h.dial()
		w.do("+OK\r\n", "SELECT", "2")
		w.do("+OK\r\n", "AUTH", top)
		w.do("$1\r\nv\r\n", "GET", "k")
		h.rest(w)
		w.do("+OK\r\n", "AUTH", "default", top)
		w.do("$1\r\nv\r\n", "GET", "k")
	})
}

// A login is answered in its place: not before the reply to what was sent before it.
func TestLoginIsAnsweredInItsPlace(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyWithUsers(t)
		h := m.start(t, d.Addr(), asUser("", top))
		w := h.dial()
		w.do("$-1\r\n", "GET", "k")
		d.Stall()
		w.send(cmd("INCR", "n") + cmd("AUTH", top) + cmd("INCR", "n") + cmd("AUTH", "wrong") + cmd("INCR", "n"))
		eventually(t, "all is taken", func() bool { st := h.Stats(); return st.PasswordsRight == 1 && st.PasswordsWrong == 1 })
		d.Release()
		w.want(":1\r\n+OK\r\n:2\r\n" + string(textWrongPass) + ":3\r\n")
	})
}

// A login needs no backend connection, unlike one that is to be passed on.
func TestLoginOfASessionThatSharesOpensNoConnection(t *testing.T) {
	t.Parallel()
	h := mode{shared: true}.start(t, dragonflyWithUsers(t).Addr(), asUser("", top))
	w := h.dial()
	w.do("+OK\r\n", "AUTH", top)
	w.do("$-1\r\n", "GET", "k")
	if s := h.sessionOf(w); s.hasOwn() {
		t.Error("the session has a connection of its own")
	}
}

// A session takes the password that was configured when it began, and the one that is now.
func TestPasswordThatRotates(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		type login struct {
			password string
			err      error
		}
		var now atomic.Pointer[login]
		now.Store(&login{password: "webpw"})
		j := mapping("web")
		j.change("web", func(u *User) {
			u.Password = func() (string, error) { l := now.Load(); return l.password, l.err }
		})
		d := dragonflyWithUsers(t, "web")
		h := m.start(t, d.Addr(), mappedTo(j))
		old := h.dialAs("web")
		old.do("+OK\r\n", "AUTH", "web", "webpw")
		old.do(string(textWrongPass), "AUTH", "web", "fresh")
		dialPlainAsDefault(t, d).do("+OK\r\n", "ACL", "SETUSER", "web", "<webpw", ">fresh")
		now.Store(&login{password: "fresh"})
		old.do("+OK\r\n", "AUTH", "web", "webpw")
		old.do("+OK\r\n", "AUTH", "web", "fresh")
		young := h.dialAs("web")
		young.do("+OK\r\n", "AUTH", "web", "fresh")
		young.do(string(textWrongPass), "AUTH", "web", "webpw")
		now.Store(&login{err: errors.New("no such file")})
		old.do("+OK\r\n", "AUTH", "web", "webpw")
		old.do(string(textUnavailable), "AUTH", "web", "fresh") // nobody knows
		old.do("-ERR wrong number of arguments for 'auth' command\r\n", "AUTH")
		now.Store(&login{password: "fresh"})
		old.do("+OK\r\n", "AUTH", "web", "fresh")
		wantNoLoginPassed(t, d)
	})
}

func TestClientsThatAuthenticateThemselvesGoOnDoingSo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, change := range map[string]func(*Config){"no credentials": nil, "an empty password": asUser("", "")} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := m.start(t, redisWithUsers(t, "web"), change)
				w := h.dial()
				w.do("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "default", "")
				w.do("+OK\r\n", "AUTH", top)
				w.actsAs("default")
				w.do("+OK\r\n", "AUTH", "web", "webpw")
				w.actsAs("web")
				if st := h.Stats(); st.PasswordsRight+st.PasswordsWrong != 0 || st.Commands["AUTH"] != 3 {
					t.Errorf("counted %d, %d, %v", st.PasswordsRight, st.PasswordsWrong, st.Commands)
				}
			})
		}
	})
}

// After a wrong password a session takes no more commands for a while. Others of its identity go on meanwhile, and Close does not
// wait for the pause.
func TestWrongPasswordPausesItsSessionAlone(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyWithUsers(t)
		h := m.start(t, d.Addr(), func(c *Config) { asUser("", top)(c); c.wrongPasswordPause = time.Hour })
		guesser, other := h.dial(), h.dial()
		guesser.send(cmd("SET", "before", "v") + cmd("AUTH", "wrong") + cmd("SET", "after", "v") + cmd("AUTH", "wrong"))
		guesser.want("+OK\r\n" + string(textWrongPass))
		for range 100 {
			other.do("+OK\r\n", "AUTH", top)
			other.do("$1\r\nv\r\n", "GET", "before")
		}
		third := h.dial()
		third.do("$1\r\nv\r\n", "GET", "before")
		if _, ok := d.String(0, "after"); ok {
			t.Error("the session that guesses takes commands")
		}
		if n := h.Stats().PasswordsWrong; n != 1 {
			t.Errorf("it has guessed %d times", n)
		}
	})
}

func TestGuessingEndsTheSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, guess := range []string{cmd("AUTH", "default", "guess"), cmd("HELLO", "3", "AUTH", "default", "guess")} {
			h := m.start(t, dragonflyWithUsers(t).Addr(), asUser("", top))
			w := h.dial()
			w.send(cmd("AUTH", top) + strings.Repeat(guess, 100) + cmd("SET", "k", "v"))
			if got, want := w.wantEnd(), "+OK\r\n"+strings.Repeat(string(textWrongPass), maxWrongPasswords); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			h.wantClosed(closeWrongPassword, 1)
			if n := h.Stats().PasswordsWrong; n != maxWrongPasswords {
				t.Errorf("%d guesses", n)
			}
		}
	})
}

func TestWrongPasswordIsToldWithoutIt(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const marker = "hunter2marker"
		var out syncBuffer
		j := mapping("web")
		j.change("web", func(u *User) { u.Password = secret(marker) })
		d := dragonfly(t, proxytest.Options{RequirePass: top, Users: []proxytest.User{{Name: "web", Password: marker}}})
		h := m.start(t, d.Addr(), func(c *Config) { mappedTo(j)(c); audited(AuditCommands, &out)(c) })
		w := h.dialAs("web")
		w.do("+OK\r\n", "AUTH", "web", marker)
		w.do(string(textWrongPass), "AUTH", marker+"user", marker+"x")
		w.do(string(textWrongPass), "HELLO", "3", "AUTH", marker, marker)
		w.answer("HELLO", "2", "AUTH", "web", marker)
		w.Close()
		eventually(t, "its end is written", func() bool { return len(auditLines(t, &out, "ended")) == 1 })
		lines := auditLines(t, &out, "command")
		for i, want := range []auditLine{
			{"command": "AUTH", "refused": false, "local": true}, {"command": "AUTH", "refused": true, "local": true},
			{"command": "HELLO", "refused": true, "local": true}, {"command": "HELLO", "refused": false, "local": false}, {"command": "ECHO", "local": false},
		} {
			lines[i].want(t, want)
		}
		told := h.linesWith("message", "a client sent a password that is not the one it acts with")
		if len(told) != 2 {
			t.Errorf("told %d times, want 2", len(told))
		}
		for _, line := range told {
			if line["level"] != "warn" || line["client"] != "web" || line["user"] != "web" || line["remote"] == nil || line["identity"] == nil {
				t.Errorf("told %v", line)
			}
		}
		if all := h.logs.String() + out.String(); strings.Contains(all, marker) {
			t.Errorf("a password in %s", all)
		}
	})
}
