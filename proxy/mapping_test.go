package proxy

import (
	"crypto/tls"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

func secret(s string) func() (string, error) { return func() (string, error) { return s, nil } }

func mappedTo(j *judgement) func(*Config) { return func(c *Config) { c.Recheck = j.recheck } }

// mapping gives each CN a user of its own name, with its name and "pw" as password.
func mapping(names ...string) *judgement {
	j := &judgement{users: map[string]User{}}
	for _, n := range names {
		j.users[n] = User{Name: n, Password: secret(n + "pw")}
	}
	return j
}

func (j *judgement) change(cn string, f func(*User)) {
	j.set(func(j *judgement) {
		u := j.users[cn]
		f(&u)
		j.users[cn] = u
	})
}

func redisWithUsers(t *testing.T, names ...string) string {
	args := []string{"--requirepass", "top"}
	for _, n := range names {
		args = append(args, "--user", n, "on", ">"+n+"pw", "~*", "&*", "+@all")
	}
	return redisServer(t, args...)
}

func dragonflyWithUsers(t *testing.T, names ...string) *proxytest.Dragonfly {
	o := proxytest.Options{RequirePass: "top"}
	for _, n := range names {
		o.Users = append(o.Users, proxytest.User{Name: n, Password: n + "pw"})
	}
	return dragonfly(t, o)
}

func (w *wire) actsAs(user string) {
	w.t.Helper()
	w.send(cmd("ACL", "WHOAMI"))
	w.line()
	if got := strings.TrimPrefix(strings.TrimSpace(w.line()), "User is "); got != user {
		w.t.Fatalf("acts as %q, want %q", got, user)
	}
}

func TestEachCertificateActsAsItsUser(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		names := []string{"alpha", "beta", "gamma"}
		for _, backend := range []string{"redis", "dragonfly"} {
			for _, credentials := range []func(*Config){asUser("", ""), asUser("default", "top")} {
				addr := ""
				if backend == "redis" {
					addr = redisWithUsers(t, names...)
				} else {
					addr = dragonflyWithUsers(t, names...).Addr()
				}
				h := m.start(t, addr, func(c *Config) {
					credentials(c)
					mappedTo(mapping(names...))(c)
					c.Backend.RefusePasswords = true
				})
				var clients []*wire
				for _, n := range names {
					clients = append(clients, h.dialAs(n))
				}
				for range 3 {
					for i, w := range clients {
						w.actsAs(names[i])
						w.do("+RESET\r\n", "RESET")
						w.do(string(textOwnAuth), "AUTH", "beta", "betapw")
						w.do(string(textOwnAuth), "AUTH", "top")
						w.do(string(textOwnAuth), "HELLO", "3", "AUTH", "beta", "betapw")
						w.actsAs(names[i])
					}
				}
			}
		}
	})
}

func TestNoSequenceLeavesTheMappedUser(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		web := &judgement{users: map[string]User{"client": {Name: "web", Password: secret(webPassword)}}}
		d := userBackend(t)
		whose(t, m.start(t, d.Addr(), endsSoon(mappedTo(web))), "$11\r\nUser is web\r\n", nil)
		checkUser(t, d, "web")

		noReset := &judgement{users: map[string]User{"client": {Name: "noreset", Password: secret(webPassword)}}}
		d = userBackend(t)
		whose(t, m.start(t, d.Addr(), endsSoon(mappedTo(noReset))), "$15\r\nUser is noreset\r\n", nil)
		checkUser(t, d, "noreset")

		j := &judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw")}}}
		whose(t, m.start(t, redisWithUsers(t, "web", "other"), endsSoon(mappedTo(j))), "$3\r\nweb\r\n", nil)
	})
}

func TestClientMayAuthenticateWhereItsRuleSaysSo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, backend := range []string{"redis", "dragonfly"} {
			addr := ""
			if backend == "redis" {
				addr = redisWithUsers(t, "web", "other")
			} else {
				addr = dragonflyWithUsers(t, "web", "other").Addr()
			}
			j := &judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw"), ClientAuth: true}}}
			w := m.start(t, addr, mappedTo(j)).dial()
			w.actsAs("web")
			w.do("+OK\r\n", "AUTH", "other", "otherpw")
			w.actsAs("other")
			w.do("+RESET\r\n", "RESET")
			w.actsAs("web")
			w.do(string(textUserName), "AUTH", "other\r\n", "otherpw")
		}
	})
}

// A refused RESET changes nothing, not even the user that a client has chosen where it may.
func TestRefusedResetKeepsTheClientsOwnUser(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{RequirePass: "top", Users: []proxytest.User{
			{Name: "web", Password: "webpw"}, {Name: "other", Password: "otherpw", Deny: []string{"reset"}},
		}})
		j := &judgement{users: map[string]User{"client": {Name: "web", Password: secret("webpw"), ClientAuth: true}}}
		w := m.start(t, d.Addr(), mappedTo(j)).dial()
		w.do("+OK\r\n", "AUTH", "other", "otherpw")
		w.do("-NOPERM other has no ACL permissions\r\n", "RESET")
		w.actsAs("other")
	})
}

func yes() bool { return true }

// Ready is a backend that mapped clients are served by, whoever the prober is.
func TestReadinessWantsWhatMappedClientsNeed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		user := []string{"--user", "alpha", "on", ">alphapw", "~*", "&*", "+@all"}
		nobody := append(user, "--user", "default", "on", "nopass", "-@all")
		locked := append(user, "--requirepass", "top")
		for _, c := range []struct {
			name        string
			args        []string
			credentials func(*Config)
			ready       bool
		}{
			{"open", user, nil, false},
			{"open, to the proxy's user", user, asUser("alpha", "alphapw"), false},
			{"a default user without password and rights", nobody, nil, false},
			{"the same, to default", nobody, asUser("default", "any"), false},
			{"locked", locked, nil, true},
			{"locked, to default", locked, asUser("", "top"), true},
			{"default is off", append(user, "--user", "default", "off"), nil, true},
		} {
			t.Run(c.name, func(t *testing.T) {
				h := m.start(t, redisServer(t, c.args...), func(cf *Config) {
					mappedTo(mapping("alpha"))(cf)
					cf.Backend.Mapped = yes
					if c.credentials != nil {
						c.credentials(cf)
					}
				})
				w := h.dialAs("alpha")
				if c.ready {
					h.wantReady(true, "")
					w.actsAs("alpha")
					return
				}
				eventually(t, "not ready, and why", func() bool { r := h.BackendReady(); return !r.OK && r.Reason == "unauthenticated_access" })
				w.send(cmd("PING"))
				if got := w.wantEnd(); got != string(textBackendOpen) {
					t.Errorf("got %q", got)
				}
			})
		}
	})
}

// The prober's connection never authenticates here, so it sees every change.
func TestReadinessEndsWhenTheBackendOpens(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr := redisServer(t, "--requirepass", "top")
		h := m.start(t, addr, func(cf *Config) { mappedTo(mapping())(cf); cf.Backend.Mapped = yes })
		h.wantReady(true, "")
		p := dialPlain(t, addr)
		p.do("+OK\r\n", "AUTH", "top")
		p.do("+OK\r\n", "CONFIG", "SET", "requirepass", "")
		eventually(t, "not ready, and why", func() bool { r := h.BackendReady(); return !r.OK && r.Reason == "unauthenticated_access" })
		p.do("+OK\r\n", "CONFIG", "SET", "requirepass", "top")
		h.wantReady(true, "")
	})
}

// The proxy's own password serves /readyz alone here: that it is old costs mapped clients nothing.
func TestWrongProberCredentialsPauseNoMappedClient(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, addr := range map[string]string{
			"auth":                   redisWithUsers(t, "alpha"),
			"unauthenticated_access": redisServer(t, "--user", "alpha", "on", ">alphapw", "+@all"),
		} {
			h := m.start(t, addr, func(cf *Config) {
				asUser("", "stale")(cf)
				mappedTo(mapping("alpha"))(cf)
				cf.Backend.Mapped = yes
			})
			eventually(t, "the prober fails", func() bool { return h.BackendReady().Reason == name })
			if h.backend.IsFailing() {
				t.Errorf("%s: dials pause", name)
			}
		}
	})
}

func TestUserNamesThatAreNoneAreRefused(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, name := range []string{"", "a b", "a\r\nb", "é"} {
			j := &judgement{users: map[string]User{"client": {Name: name, Password: secret("x")}}}
			h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), mappedTo(j))
			if got := h.dial().wantEnd(); got != "" {
				t.Errorf("got %q", got)
			}
			h.wantClosed(closeBadUser, 1)
		}
	})
}

func TestChangedUserEndsItsSessions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, change := range map[string]func(*User){
			"name":       func(u *User) { u.Name, u.Password = "other", secret("otherpw") },
			"mapping":    func(u *User) { u.Mapping[0]++ },
			"clientAuth": func(u *User) { u.ClientAuth = true },
		} {
			t.Run(name, func(t *testing.T) {
				j := mapping("web", "other")
				h := m.start(t, dragonflyWithUsers(t, "web", "other").Addr(), mappedTo(j))
				w, other := h.dialAs("web"), h.dialAs("other")
				w.actsAs("web")
				other.actsAs("other")
				j.change("web", func(u *User) { u.Password = secret("webpw") }) // another function: nothing changes
				h.Recheck()
				w.actsAs("web")
				j.change("web", change)
				h.Recheck()
				if got := w.wantEnd(); got != "" {
					t.Errorf("got %q", got)
				}
				h.wantClosed(closeUserChanged, 1)
				other.actsAs("other")
				h.dialAs("web").actsAs(j.users["web"].Name)
			})
		}
		t.Run("none any more", func(t *testing.T) {
			j := mapping("web")
			h := m.start(t, dragonflyWithUsers(t, "web").Addr(), mappedTo(j))
			w := h.dialAs("web")
			w.actsAs("web")
			j.set(func(j *judgement) { j.users = nil })
			h.Recheck()
			w.wantEnd()
			h.wantClosed(closeUserChanged, 1)
		})
		t.Run("unmapped", func(t *testing.T) {
			j := mapping("web")
			h := m.start(t, dragonflyWithUsers(t, "web").Addr(), mappedTo(j))
			w := h.dialAs("web")
			w.actsAs("web")
			j.set(func(j *judgement) { delete(j.users, "web") })
			h.Recheck()
			w.wantEnd()
			h.wantClosed(closeUnmapped, 1)
		})
	})
}

// A user changes while its client connects: whoever judged last is right, and no session acts as the old one.
func TestUserThatChangesWhileItsClientConnects(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := mapping("web", "other")
		h := m.start(t, dragonflyWithUsers(t, "web", "other").Addr(), mappedTo(j))
		for i := range 20 {
			name := []string{"web", "other"}[i%2]
			connected := make(chan *wire)
			go func() { connected <- h.dialAs("web") }()
			j.change("web", func(u *User) { u.Name, u.Password = name, secret(name+"pw") })
			h.Recheck()
			w := <-connected
			w.send(cmd("ACL", "WHOAMI"))
			w.SetReadDeadline(time.Now().Add(patience))
			if _, err := w.r.ReadString('\n'); err == nil {
				if got := w.line(); got != "User is "+name+"\r\n" {
					t.Fatalf("round %d: acts as %q, want %q", i, got, name)
				}
			}
			w.Close()
		}
	})
}

// The first verdict on a session is old by the time it is given: what Recheck said meanwhile holds.
func TestOldVerdictDoesNotReplaceANewerOne(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := mapping("web", "other")
		judged, given := make(chan struct{}), make(chan struct{})
		var first atomic.Bool
		h := m.start(t, dragonflyWithUsers(t, "web", "other").Addr(), func(c *Config) {
			c.Recheck = func(cs *tls.ConnectionState) (Peer, error) {
				p, err := j.recheck(cs)
				if first.CompareAndSwap(false, true) {
					close(judged)
					<-given
				}
				return p, err
			}
		})
		w := h.dialAs("web")
		<-judged
		j.change("web", func(u *User) { u.Name, u.Password = "other", secret("otherpw") })
		h.Recheck()
		close(given)
		w.actsAs("other")
	})
}

// No client reaches a session, so this stays in one mode.
func TestHandshakeNamesWhyAClientIsNotAllowed(t *testing.T) {
	for _, reason := range []string{handshakeNotAllowed, handshakeUnmapped, handshakeBadUser} {
		h := start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.TLS.VerifyConnection = func(tls.ConnectionState) error { return lostError(reason) }
		})
		if c, err := tls.Dial("tcp", h.addr, testPKI().clientConfig()); err == nil {
			newWire(t, c).wantEnd()
		}
		eventually(t, "counted as "+reason, func() bool {
			for k, n := range h.Stats().Handshakes {
				if k.Reason == reason && n == 1 {
					return true
				}
			}
			return false
		})
	}
}
