//go:build unix

package main

import (
	"path/filepath"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

// passwordWorld is a way in which dragontls authenticates for a client, whose application sends the same user and password.
type passwordWorld struct {
	name, user, password string
	vars                 []string
}

func passwordWorlds(t *testing.T) []passwordWorld {
	t.Helper()
	users := filepath.Join(t.TempDir(), "users.yaml")
	write(t, users, []byte("users:\n  - match: [\"cn:*\"]\n    user: web\n    password_file: web.pass\n"))
	write(t, filepath.Join(filepath.Dir(users), "web.pass"), []byte("web-secret\n"))
	return []passwordWorld{
		{"requirepass", "default", backendPassword, []string{"BACKEND_PASSWORD=" + backendPassword}},
		{"an ACL user", "web", "web-secret", []string{"BACKEND_USERNAME=web", "BACKEND_PASSWORD=web-secret"}},
		{"the users file", "web", "web-secret", []string{"USERS_FILE=" + users, "BACKEND_PASSWORD=" + backendPassword}},
	}
}

func passwordRedis(t *testing.T) *redis {
	t.Helper()
	need(t, "redis-cli")
	return redisServer(t, "--requirepass", backendPassword, "--user", "web", "on", ">web-secret", "~*", "&*", "+@all")
}

// The configuration that most applications have, rediss://:password@host, works although dragontls authenticates for them.
func TestApplicationsThatSendAPassword(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		r := passwordRedis(t)
		for _, w := range passwordWorlds(t) {
			t.Run(w.name, func(t *testing.T) {
				t.Parallel()
				p := serving(t, r.url(), append(w.vars, "BACKEND_MODE="+mode)...).wantReady()
				for _, protocol := range []string{"2", "3"} {
					login := w.user + ":" + w.password
					if w.user == "default" {
						login = ":" + w.password
					}
					if out := ioredis(t, p, "login", protocol, "LOGIN="+login); !strings.HasPrefix(out, "user "+w.user+"\n") {
						t.Errorf("ioredis acts as %q", out)
					}
					if out := ioredis(t, p, "refused", protocol, "LOGIN=:wrong"); !strings.HasPrefix(out, "WRONGPASS ") {
						t.Errorf("ioredis with a wrong password: %q", out)
					}
				}
				testGoRedisLogin(t, p, w)
				testRedisCLILogin(t, p, w)
				m := p.metrics()
				if right, wrong := m.sum("client_passwords_total", "result", "right"), m.sum("client_passwords_total", "result", "wrong"); right < 6 || wrong < 6 {
					t.Errorf("counted %v right and %v wrong passwords", right, wrong)
				}
				p.wantEnd()
				if strings.Contains(p.stderr.String(), w.password) {
					t.Error("a password in the log")
				}
			})
		}
	})
}

func testGoRedisLogin(t *testing.T, p *instance, w passwordWorld) {
	for _, protocol := range []int{2, 3} {
		c := goRedis(t, p, protocol, func(o *goredis.Options) {
			o.Username, o.Password, o.DB, o.ClientName = w.user, w.password, 4, "app"
			if w.user == "default" {
				o.Username = ""
			}
		})
		want(t, "OK")(c.Set(t.Context(), "k", "v", 0).Result())
		want(t, "v")(c.Get(t.Context(), "k").Result())
		want(t, w.user)(c.ACLWhoAmI(t.Context()).Result())
		want(t, "app")(c.ClientGetName(t.Context()).Result())
		c = goRedis(t, p, protocol, func(o *goredis.Options) { o.Password = "wrong" })
		if err := c.Ping(t.Context()).Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS ") {
			t.Errorf("go-redis with a wrong password: %v", err)
		}
	}
}

func testRedisCLILogin(t *testing.T, p *instance, w passwordWorld) {
	for _, protocol := range []string{"-2", "-3"} {
		flags := []string{protocol, "-n", "5", "--no-auth-warning", "--user", w.user, "--pass", w.password}
		if w.user == "default" {
			flags = []string{protocol, "-n", "5", "--no-auth-warning", "-a", w.password}
		}
		if got := p.cli(t, "", append(flags, "ACL", "WHOAMI")...); got != w.user+"\n" {
			t.Errorf("redis-cli: got %q", got)
		}
		out, _ := tool(t, "", "", "redis-cli", append(p.flags(), protocol, "--no-auth-warning", "-a", "wrong", "ACL", "WHOAMI")...)
		if !strings.Contains(out, "WRONGPASS invalid username-password pair") {
			t.Errorf("redis-cli with a wrong password: got %q", out)
		}
	}
}

func TestApplicationsMustNotSendAPasswordWhereItIsRefused(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		r := passwordRedis(t)
		p := serving(t, r.url(), "BACKEND_PASSWORD="+backendPassword, "CLIENT_PASSWORD=refuse", "BACKEND_MODE="+mode).wantReady()
		out, _ := tool(t, "", "", "redis-cli", append(p.flags(), "--no-auth-warning", "-a", backendPassword, "ACL", "WHOAMI")...)
		if !strings.Contains(out, "NOPERM dragontls: ") || !strings.Contains(out, "default") {
			t.Errorf("got %q", out)
		}
		p.wantMetric(0, "client_passwords_total")
		p.wantEnd()
	})
}
