package proxy

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"dragontls/proxy/proxytest"
)

// wantNoPause: whoever dials next does so at once.
func (h *harness) wantNoPause() {
	h.t.Helper()
	if h.backend.IsFailing() {
		h.t.Error("dials of others pause")
	}
}

func TestWrongPasswordOfOneUserDisturbsNobodyElse(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := mapping("good", "bad")
		j.change("bad", func(u *User) { u.Password = secret("wrong") })
		h := m.start(t, dragonflyWithUsers(t, "good", "bad").Addr(), mappedTo(j))
		h.wantReady(true, "")
		for range 5 {
			bad := h.dialAs("bad")
			bad.send(cmd("PING"))
			if got := bad.wantEnd(); got != string(textBackendAuth) {
				t.Fatalf("got %q", got)
			}
			h.wantNoPause()
			good := h.dialAs("good")
			good.actsAs("good")
			good.Close()
		}
		h.wantClosed(closeBackendAuth, 5)
		if st := h.Stats(); !st.BackendUp || st.BackendErrors["auth"] < 5 {
			t.Errorf("up %v, errors %v", st.BackendUp, st.BackendErrors)
		}
		if logs := h.logs.String(); !strings.Contains(logs, `"user":"bad"`) || strings.Contains(logs, "wrong") {
			t.Errorf("logs: %s", logs)
		}
	})
}

func TestPasswordThatCannotBeReadIsAwaited(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var there atomic.Bool
		j := mapping("web", "other")
		j.change("web", func(u *User) {
			u.Password = func() (string, error) {
				if !there.Load() {
					return "", errors.New("no such file")
				}
				return "webpw", nil
			}
		})
		h := m.start(t, dragonflyWithUsers(t, "web", "other").Addr(), mappedTo(j))
		w := h.dialAs("web")
		w.send(cmd("PING"))
		eventually(t, "it was asked for", func() bool { return h.Stats().BackendErrors["settings"] >= 2 })
		h.wantNoPause()
		h.dialAs("other").actsAs("other")
		there.Store(true)
		w.want("+PONG\r\n")
		w.actsAs("web")
	})
}

func TestEmptyPasswordNeverMeansNoUser(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := mapping("web")
		j.change("web", func(u *User) { u.Password = secret("") })
		d := dragonfly(t, proxytest.Options{})
		w := m.start(t, d.Addr(), func(c *Config) { mappedTo(j)(c); soonUnavailable(c) }).dialAs("web")
		w.send(cmd("SET", "k", "v"))
		if got := w.wantEnd(); got != string(textUnavailable) {
			t.Errorf("got %q", got)
		}
		if _, ok := d.String(0, "k"); ok {
			t.Error("a command ran without its user")
		}
	})
}

func TestRotatedPasswordCostsNoRestart(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var password atomic.Value
		password.Store("webpw")
		j := mapping("web")
		j.change("web", func(u *User) { u.Password = func() (string, error) { return password.Load().(string), nil } })
		d := dragonflyWithUsers(t, "web")
		h := m.start(t, d.Addr(), mappedTo(j))
		old := h.dialAs("web")
		old.actsAs("web")
		dialPlainAsDefault(t, d).do("+OK\r\n", "ACL", "SETUSER", "web", "<webpw", ">fresh", "-reset")
		password.Store("fresh")
		h.dialAs("web").actsAs("web")
		old.do("-NOPERM web has no ACL permissions\r\n", "RESET") // authenticates anew behind it
		old.actsAs("web")
	})
}

func dialPlainAsDefault(t *testing.T, d *proxytest.Dragonfly) *wire {
	w := dialPlain(t, d.Addr())
	w.do("+OK\r\n", "AUTH", "top")
	return w
}
