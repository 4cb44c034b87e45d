package proxy

import (
	"strings"
	"testing"

	"dragontls/proxy/command"
	"dragontls/proxy/proxytest"
)

// ruledClient gives the harness' client, CN client, these rules.
func ruledClient(t testing.TB, o command.RuleOptions) *judgement {
	return &judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw"), Rules: newRules(t, o)}}}
}

func webBackend(t *testing.T, backend string) string {
	if backend == "redis" {
		return redisWithUsers(t, "web", "other")
	}
	return dragonflyWithUsers(t, "web", "other").Addr()
}

func TestRulesSeeEverySpelling(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, backend := range []string{"redis", "dragonfly"} {
			t.Run(backend, func(t *testing.T) {
				j := ruledClient(t, command.RuleOptions{Allow: []string{"@all"}, Deny: []string{"GET", "CONFIG|SET", "@admin", "MEMORY|USAGE", "MY.MODULE", "ACL|WHOAMI"}})
				w := m.start(t, webBackend(t, backend), mappedTo(j)).dial()
				get, config := forbidden("the command GET"), forbidden("the command CONFIG")
				for spelled, want := range map[string]string{
					cmd("GET", "k"): get, cmd("gEt", "k"): get, "get k\r\n": get, "  GeT   k  \n": get, "*02\r\n$+3\r\nGET\r\n$01\r\nk\r\n": get,
					cmd("GET "): get, cmd(" GET", "k"): get, cmd("GET k"): get, cmd("get\tk"): get, cmd("\r\nGET", "k"): get, cmd("GET\x00", "k"): string(textName),
					cmd("CONFIG", "SET\x00", "maxmemory", "1"): string(textSub), cmd("MEMORY", "usage\x00"+tooLong): string(textLongSub), cmd("GET\x00" + tooLong): string(textLongName),
					cmd("GET", strings.Repeat("k", 100<<10)): get, cmd("get", "k", strings.Repeat("k", 1<<20)): get,
					cmd("CONFIG", "SET", "maxmemory", "1"): config, cmd("config get", "x"): config, cmd("CONFIG", "GET", strings.Repeat("x", 100<<10)): config,
					cmd("memory", "usage", "k"): forbidden("the command MEMORY USAGE"), cmd("MEMORY usage", "k"): forbidden("the command MEMORY USAGE"),
					cmd("my.module", "x"): forbidden("this command"), cmd("MY.MODULE x"): forbidden("this command"),
					cmd("ACL", "whoami"): forbidden("the command ACL WHOAMI"), cmd("ACL WHOAMI"): forbidden("the command ACL WHOAMI"),
					cmd(" acl\t whoAmI "): forbidden("the command ACL WHOAMI"), "acl whoami\r\n": forbidden("the command ACL WHOAMI"),
					cmd("ACL", " WHOAMI x"): forbidden("the command ACL WHOAMI"), cmd("ACL", strings.Repeat(" ", 300)+"WHOAMI"): forbidden("the command ACL WHOAMI"),
				} {
					w.send(cmd("PING") + spelled + cmd("ECHO", "a"))
					w.want("+PONG\r\n" + want + "$1\r\na\r\n")
				}
				w.do("+OK\r\n", "SET", "k", "v")
				w.do(":1\r\n", "STRLEN", "k")
			})
		}
	})
}

func TestAllowLetsNothingElsePass(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{Allow: []string{"get", "@connection", "CONFIG|GET", "x.y"}, Deny: []string{"echo"}})
		h := m.start(t, redisWithUsers(t, "web"), func(c *Config) { mappedTo(j)(c); c.Backend.RefusePasswords = true })
		w := h.dial()
		w.do("$-1\r\n", "GET", "k")
		w.do("+PONG\r\n", "PING")
		w.do("*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n", "config", "get", "appendonly")
		w.send(cmd("SET", "k", "v") + cmd("CONFIG", "SET", "maxmemory", "1") + cmd("CONFIG") + cmd("ECHO", "a") + cmd("nosuch", "x") + cmd("ACL", "SETUSER", "x") +
			cmd(strings.Repeat("x", 70<<10)) + cmd("SELECT", "1"))
		w.want(forbidden("the command SET") + forbidden("the command CONFIG") + forbidden("the command CONFIG") + forbidden("the command ECHO") +
			forbidden("this command") + forbidden("the command ACL") + forbidden("this command") + "+OK\r\n")
		w.send(cmd("X.Y"))
		if got := w.line(); !strings.HasPrefix(got, "-ERR unknown command") {
			t.Errorf("got %q", got)
		}
		w.do("+RESET\r\n", "RESET") // of no list
		w.do(string(textOwnAuth), "AUTH", "web", "webpw")
		st := h.Stats()
		for name, want := range map[string]uint64{"SET": 1, "CONFIG": 2, "ECHO": 1, "other": 2, "ACL": 1} {
			if got := st.CommandsLocal[name]; got != want {
				t.Errorf("%s: refused %d times, want %d", name, got, want)
			}
		}
		// Of one client, limit.MaxLinesOfOne lines pass in a second.
		for name, want := range map[string]int{"SET": 1, "CONFIG": 2, "ECHO": 1} {
			if got := strings.Count(h.logs.String(), `"by":"users_file","command":"`+name+`"`); got != want {
				t.Errorf("%s: logged %d times, want %d", name, got, want)
			}
		}
		if st.Denied["users_file"] != 7 || st.Denied["authentication"] != 1 || len(st.RulesWouldDeny) != 0 {
			t.Errorf("counted %v, %v", st.Denied, st.RulesWouldDeny)
		}
		w.do("+OK\r\n", "QUIT")
	})
}

func TestRefusalByRulesDoomsATransaction(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const abort = "-EXECABORT Transaction discarded because of previous errors\r\n"
		for _, backend := range []string{"redis", "dragonfly"} {
			j := ruledClient(t, command.RuleOptions{Deny: []string{"INCR"}})
			w := m.start(t, webBackend(t, backend), mappedTo(j)).dial()
			for _, middle := range []string{cmd("INCR", "n"), "incr n\r\n", cmd("INCR n"), cmd("INCR", strings.Repeat("n", 100<<10))} {
				w.send(cmd("MULTI") + cmd("SET", "a", "1") + middle + cmd("SET", "b", "1") + cmd("EXEC") + cmd("EXISTS", "a", "b"))
				w.want("+OK\r\n+QUEUED\r\n" + forbidden("the command INCR") + "+QUEUED\r\n" + abort + ":0\r\n")
			}
			w.send(cmd("MULTI") + cmd("SET", "a", "1") + cmd("EXEC") + cmd("DEL", "a"))
			w.want("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n:1\r\n")
		}
	})
}

func TestRefusalByRulesEndsASubscribedSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{Deny: []string{"GET"}})
		h := m.start(t, webBackend(t, "dragonfly"), mappedTo(j))
		w := h.dial()
		w.do("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "SUBSCRIBE", "c")
		w.send(cmd("GET", "k"))
		if got := w.wantEnd(); got != forbidden("the command GET") {
			t.Errorf("got %q", got)
		}
		h.wantClosed(closeRefused, 1)
	})
}

func TestRulesMayDenyWhatIsElseAlwaysAllowed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{Deny: []string{"RESET", "quit", "HELLO"}})
		w := m.start(t, webBackend(t, "dragonfly"), mappedTo(j)).dial()
		w.do(forbidden("the command RESET"), "RESET")
		w.do(forbidden("the command QUIT"), "quit")
		w.do(forbidden("the command HELLO"), "HELLO", "3")
		w.do("+PONG\r\n", "PING")
	})
}

func TestDryRunCountsAndLetsPass(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{Allow: []string{"GET"}, DryRun: true})
		h := m.start(t, webBackend(t, "dragonfly"), mappedTo(j))
		w := h.dial()
		for range 3 {
			w.do("+OK\r\n", "SET", "secret-key", "secret-value")
		}
		w.do("$12\r\nsecret-value\r\n", "GET", "secret-key")
		w.send(cmd("MULTI") + cmd("INCR", "n") + cmd("EXEC"))
		w.want("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n")
		h.dial().do("+OK\r\n", "SET", "secret-key", "secret-value")
		st := h.Stats()
		if st.RulesWouldDeny["SET"] != 4 || st.RulesWouldDeny["INCR"] != 1 || st.RulesWouldDeny["GET"] != 0 || st.Denied["users_file"] != 0 {
			t.Errorf("counted %v, %v", st.RulesWouldDeny, st.Denied)
		}
		logs := h.logs.String()
		if n := strings.Count(logs, `"command":"SET","client":"client","user":"web"`); n != 1 || strings.Contains(logs, "secret-") {
			t.Errorf("logged %d times: %s", n, logs)
		}
	})
}

func TestChangedRulesRuleLiveSessions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{Deny: []string{"GET"}})
		h := m.start(t, webBackend(t, "dragonfly"), mappedTo(j))
		w := h.dial()
		w.do(forbidden("the command GET"), "GET", "k")
		for _, c := range []struct {
			rules    command.RuleOptions
			get, set string
		}{
			{command.RuleOptions{}, "$-1\r\n", ":0\r\n"},
			{command.RuleOptions{Deny: []string{"DEL"}}, "$-1\r\n", forbidden("the command DEL")},
			{command.RuleOptions{Allow: []string{"DEL"}}, forbidden("the command GET"), ":0\r\n"},
			{command.RuleOptions{Allow: []string{"DEL"}, DryRun: true}, "$-1\r\n", ":0\r\n"},
		} {
			j.change("client", func(u *User) { u.Rules = newRules(t, c.rules) })
			h.Recheck()
			w.send(cmd("GET", "k") + cmd("DEL", "k"))
			w.want(c.get + c.set)
		}
	})
}

// Rules change in the middle of a pipeline: no reply is lost or shifted, whatever is refused.
func TestRulesChangeUnderLoad(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{})
		h := m.start(t, webBackend(t, "dragonfly"), mappedTo(j))
		w := h.dial()
		done := make(chan struct{})
		go func() { // ends with done
			defer close(done)
			for i := range 100 {
				o := command.RuleOptions{}
				if i%2 == 0 {
					o.Deny = []string{"STRLEN"}
				}
				rules, _ := command.NewRules(o)
				j.change("client", func(u *User) { u.Rules = rules })
				h.Recheck()
			}
		}()
		text := forbidden("the command STRLEN")
		for range 100 {
			w.send(strings.Repeat(cmd("STRLEN", "k")+cmd("ECHO", "x"), 50))
			for range 50 {
				if l := w.line(); l != ":0\r\n" && l != text {
					t.Fatalf("got %q", l)
				}
				w.want("$1\r\nx\r\n")
			}
		}
		<-done
	})
}

func TestDenyCommandsComesFirst(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{Allow: []string{"SHUTDOWN", "my.module"}})
		h := m.start(t, dragonfly(t, proxytest.Options{RequirePass: "top", Users: []proxytest.User{{Name: "web", Password: "webpw"}}}).Addr(), func(c *Config) {
			mappedTo(j)(c)
			c.DenyCommands = []string{"SHUTDOWN", "MY.MODULE", "THEIR.MODULE|X"}
		})
		w := h.dial()
		w.do(denied("SHUTDOWN"), "SHUTDOWN")
		w.do(denied("MY.MODULE"), "my.module")
		w.do(forbidden("the command THEIR.MODULE"), "their.module", "y") // a name that only DENY_COMMANDS knows
	})
}

// firstWord is what a backend may take for a command's name.
func firstWord(name []byte) string {
	if f := strings.Fields(strings.ToUpper(strings.ReplaceAll(string(name), "\x00", " "))); len(f) > 0 {
		return f[0]
	}
	return ""
}

// Random sequences of everything that has ever confused a proxy: what is denied never arrives at the backend, and
// where there is a list of what is allowed nothing else does.
func TestNoSequenceSmugglesACommand(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, o := range map[string]command.RuleOptions{
			"deny":  {Deny: []string{"GET", "INCR", "@pubsub", "@blocking", "CLIENT|REPLY", "MONITOR"}},
			"allow": {Allow: []string{"ACL|WHOAMI", "ECHO", "MULTI", "EXEC", "DISCARD", "SET", "PING"}},
		} {
			t.Run(name, func(t *testing.T) {
				o.Deny = append(o.Deny, "x")
				j := &judgement{users: map[string]User{"client": {Name: "web", Password: secret(webPassword), Rules: newRules(t, o)}}}
				d := userBackend(t)
				whose(t, m.start(t, d.Addr(), endsSoon(mappedTo(j))), "$11\r\nUser is web\r\n", []string{
					cmd("get", "k"), "GET k\r\n", cmd("GET k"), cmd("\tGET", "k"), cmd("GET", strings.Repeat("k", 70<<10)), cmd("MULTI") + cmd("GET", "k") + cmd("EXEC"),
					cmd("GET\x00", "k"), cmd("GET\x00"+tooLong, "k"), cmd("\x00GET", "k"), cmd("INCR\x00x" + tooLong), cmd("MONITOR\x00" + tooLong), "GET\x00 k\r\n",
					cmd("CLIENT", "REPLY\x00"+tooLong, "OFF"), cmd("CLIENT\x00"+tooLong, "REPLY", "OFF"), cmd("CLIENT", "reply\x00", "off"), cmd(tooLong),
					cmd("CLIENT", "reply", "off"), cmd("CLIENT REPLY", "OFF"), cmd("client reply off"), "client reply off\r\n", cmd("CLIENT", "ID"),
				})
				checkUser(t, d, "web")
				never := map[string]bool{"GET": true, "INCR": true, "SUBSCRIBE": true, "BLPOP": true, "MONITOR": true, "X": true}
				only := map[string]bool{"ACL": true, "ECHO": true, "MULTI": true, "EXEC": true, "DISCARD": true, "SET": true, "PING": true, "AUTH": true, "HELLO": true, "QUIT": true, "RESET": true}
				seen := 0
				for _, c := range d.Commands() {
					word := firstWord(c.Args[0])
					if name == "deny" && never[word] || name == "allow" && !only[word] {
						t.Fatalf("arrived: %.100q", c)
					}
					if word == "CLIENT" && len(c.Args) > 1 && firstWord(c.Args[1]) == "REPLY" {
						t.Fatalf("arrived: %q", c)
					}
					seen++
				}
				if seen < 100 {
					t.Errorf("only %d commands arrived: this test proves nothing", seen)
				}
			})
		}
	})
}

// The reader waits for hours and reads on meanwhile: what came behind the change is judged by the new rules.
func TestChangedRulesRuleWhatIsReadWhileTheReaderWaits(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyWithUsers(t, "web", "other")
		j := mapping("other")
		j.users["client"] = User{Name: "web", Password: secret("webpw")}
		h := m.start(t, d.Addr(), mappedTo(j))
		w, other := h.dial(), h.dialAs("other")
		w.send(cmd("BLPOP", "q", "0") + cmd("RESET"))
		eventually(t, "the reader waits", func() bool { return d.Blocked() == 1 })
		j.change("client", func(u *User) { u.Rules = newRules(t, command.RuleOptions{Deny: []string{"SET", "FLUSHALL"}}) })
		h.Recheck()
		w.send(cmd("SET", "k", "v") + cmd("SET", "k", strings.Repeat("v", 100<<10)) + cmd("FLUSHALL") + cmd("ECHO", "a"))
		other.do(":1\r\n", "RPUSH", "q", "x")
		set := forbidden("the command SET")
		w.want("*2\r\n$1\r\nq\r\n$1\r\nx\r\n+RESET\r\n" + set + set + forbidden("the command FLUSHALL") + "$1\r\na\r\n")
		other.do(":0\r\n", "EXISTS", "k")
	})
}

func TestChangedRulesDoomAnOpenTransaction(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const abort = "-EXECABORT Transaction discarded because of previous errors\r\n"
		deny := command.RuleOptions{Deny: []string{"INCR"}}
		for _, backend := range []string{"redis", "dragonfly"} {
			for name, c := range map[string]struct {
				to   command.RuleOptions
				end  string
				want string
			}{
				"EXEC":            {command.RuleOptions{Deny: []string{"SET"}}, cmd("EXEC"), abort},
				"fewer rules":     {command.RuleOptions{}, cmd("EXEC"), abort},
				"more behind":     {command.RuleOptions{Deny: []string{"SET"}}, cmd("GET", "k") + cmd("EXEC"), "+QUEUED\r\n" + abort},
				"DISCARD":         {command.RuleOptions{Deny: []string{"SET"}}, cmd("DISCARD"), "+OK\r\n"},
				"the same rules":  {deny, cmd("DISCARD"), "+OK\r\n"},
				"the same, EXEC":  {deny, cmd("EXEC"), "*1\r\n+OK\r\n"},
				"only counted":    {command.RuleOptions{Deny: deny.Deny, DryRun: true}, cmd("EXEC"), abort},
				"big one behind":  {command.RuleOptions{Deny: []string{"SET"}}, cmd("ECHO", strings.Repeat("x", 100<<10)) + cmd("EXEC"), "+QUEUED\r\n" + abort},
				"refused and big": {command.RuleOptions{Deny: []string{"SET"}}, cmd("SET", "k", strings.Repeat("x", 100<<10)) + cmd("EXEC"), forbidden("the command SET") + abort},
			} {
				t.Run(backend+" "+name, func(t *testing.T) {
					j := ruledClient(t, deny)
					h := m.start(t, webBackend(t, backend), mappedTo(j))
					w := h.dial()
					w.send(cmd("MULTI") + cmd("SET", "k", "v"))
					w.want("+OK\r\n+QUEUED\r\n")
					j.change("client", func(u *User) { u.Rules = newRules(t, c.to) })
					h.Recheck()
					w.send(c.end)
					w.want(c.want)
					exists := ":0\r\n"
					if strings.HasPrefix(c.want, "*") {
						exists = ":1\r\n"
					}
					w.do(exists, "EXISTS", "k")
					w.send(cmd("MULTI") + cmd("STRLEN", "k") + cmd("DISCARD"))
					w.want("+OK\r\n+QUEUED\r\n+OK\r\n")
				})
			}
		}
	})
}

// Where replies cannot be counted there is no place for EXECABORT: the session ends, and the transaction with it.
func TestChangedRulesEndATransactionBehindASubscription(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{})
		h := m.start(t, webBackend(t, "redis"), mappedTo(j))
		w := h.dial()
		w.do("+OK\r\n", "CLIENT", "REPLY", "ON")
		w.send(cmd("MULTI") + cmd("SET", "k", "v"))
		w.want("+OK\r\n+QUEUED\r\n")
		j.change("client", func(u *User) { u.Rules = newRules(t, command.RuleOptions{Deny: []string{"SET"}}) })
		h.Recheck()
		w.send(cmd("EXEC"))
		if got := w.wantEnd(); got != string(textRulesChanged) {
			t.Errorf("got %q", got)
		}
		h.wantClosed(closeRefused, 1)
		h.dial().do(":0\r\n", "EXISTS", "k")
	})
}
