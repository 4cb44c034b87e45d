package proxy

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// Wrong passwords of one client are answered ever more slowly, and are forgotten one by one.
func TestGuessesSlowDownAndAreForgotten(t *testing.T) {
	t.Parallel()
	g := newGuesses(time.Minute)
	client := netio.QuotaKey{Identity: [32]byte{1}}
	add := func(now time.Duration, n int) (got []int) {
		for range n {
			got = append(got, g.add(client, clock.Instant(now)))
		}
		return got
	}
	for _, tt := range []struct {
		now  time.Duration
		want []int
	}{
		{0, []int{0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 5, 5}},
		{time.Minute - 1, []int{5}},
		{3*time.Minute - 1, []int{4, 5}},               // two are forgotten
		{3 * time.Minute, []int{5}},                    // another one
		{8 * time.Minute, []int{1, 2}},                 // five
		{20 * time.Minute, []int{0, 0, 0, 0, 0, 0, 1}}, // all
	} {
		if got := add(tt.now, len(tt.want)); !slices.Equal(got, tt.want) {
			t.Errorf("after %v: got %v, want %v", tt.now, got, tt.want)
		}
	}
}

// However many clients guess, the count of one that goes on is not lost among theirs.
func TestGuessesOfManyClientsAreCounted(t *testing.T) {
	t.Parallel()
	g := newGuesses(time.Minute)
	client := netio.QuotaKey{Identity: [32]byte{1}}
	for range freeGuesses {
		g.add(client, 0)
	}
	for i := range 10 * guessCounts {
		from := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		g.add(netio.QuotaKey{Network: netip.PrefixFrom(from, 32)}, 0)
	}
	if g.add(client, 0) == 0 {
		t.Error("it is answered at once again")
	}
}

// With a new connection for each guess a client waits for the answer all the same. Its right passwords do not wait, nor do other
// clients.
func TestGuessesOfManySessionsAreSlow(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonflyWithUsers(t).Addr(), func(c *Config) {
			asUser("", top)(c)
			c.Recheck = (&judgement{}).recheck
			c.wrongPasswordPause, c.forgetGuessAfter = time.Hour, time.Hour
		})
		for range freeGuesses {
			h.dialAs("web").do(string(textWrongPass), "AUTH", "guess")
		}
		late := h.dialAs("web")
		late.send(cmd("PING") + cmd("AUTH", "guess") + cmd("AUTH", top))
		late.want("+PONG\r\n")
		eventually(t, "it has guessed", func() bool { return h.Stats().PasswordsWrong == freeGuesses+1 })
		for range 20 {
			w := h.dialAs("web")
			w.do("+OK\r\n", "AUTH", top)
			w.do("+PONG\r\n", "PING")
		}
		h.dialAs("other").do(string(textWrongPass), "AUTH", "guess")
		h.Close()
		if got := late.wantEnd(); got != "" {
			t.Errorf("the guess was answered with %q", got)
		}
	})
}

// While nobody can tell whether a password is right, one that might be is counted like a wrong one: the password that was right when
// the session began could be guessed otherwise.
func TestGuessesWhileThePasswordCannotBeRead(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var unreadable atomic.Bool
		j := mapping("web")
		j.change("web", func(u *User) {
			u.Password = func() (string, error) {
				if unreadable.Load() {
					return "", errors.New("no such file")
				}
				return "webpw", nil
			}
		})
		h := m.start(t, dragonflyWithUsers(t, "web").Addr(), mappedTo(j))
		w := h.dialAs("web")
		w.do("+OK\r\n", "AUTH", "web", "webpw")
		unreadable.Store(true)
		w.send(strings.Repeat(cmd("AUTH", "web", "guess"), 100) + cmd("AUTH", "web", "webpw"))
		if got, want := w.wantEnd(), strings.Repeat(string(textUnavailable), maxWrongPasswords); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		h.wantClosed(closeWrongPassword, 1)
		if n := h.Stats().PasswordsWrong; n != 0 {
			t.Errorf("%d passwords are called wrong", n)
		}
	})
}
