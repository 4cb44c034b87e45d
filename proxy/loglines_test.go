package proxy

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/limit"
)

// told counts the lines with this message, and adds up how many more the line with the message of the others counts.
func (h *harness) told(message, others string) (lines, more int) {
	h.t.Helper()
	for _, line := range h.linesWith("message", others) {
		more += int(line["more"].(float64))
	}
	return len(h.linesWith("message", message)), more
}

// The sessions of a client whose user the backend refuses end at once, and its pool dials new ones as fast as it can: the log says who
// and why, and counts the others.
func TestRefusedUsersDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const sessions = limit.MaxLines + 5
		var stopped clock.Atomic
		j := mapping("web")
		j.change("web", func(u *User) { u.Password = secret("an old one") })
		h := m.start(t, redisWithUsers(t, "web"), func(c *Config) {
			swept(c)
			mappedTo(j)(c)
			c.clock = stopped.Load
		})
		for range sessions {
			w := h.dialAs("web")
			w.send(cmd("GET", "k"))
			w.want(string(textBackendAuth))
			w.Close()
		}
		const message = "a client's user gets no backend connection"
		stopped.Store(stopped.Load().Add(time.Second)) // the sweeper may just have told of some of them
		eventually(t, "the others are counted", func() bool {
			lines, more := h.told(message, "and more clients whose users get no backend connection")
			return lines == limit.MaxLinesOfOne && more == sessions-limit.MaxLinesOfOne
		})
		for _, line := range h.linesWith("message", message) {
			if line["level"] != "warn" || line["client"] != "web" || line["user"] != "web" || line["reason"] != "auth" || line["remote"] == nil ||
				line["identity"] == nil || line["cure"] == nil {
				t.Fatalf("told %v", line)
			}
		}
	})
}

// A client that guesses passwords in many sessions does not flood the log either.
func TestWrongPasswordsDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const sessions = limit.MaxLines + 5
		var stopped clock.Atomic
		h := m.start(t, dragonflyWithUsers(t).Addr(), func(c *Config) {
			swept(c)
			asUser("", top)(c)
			c.clock = stopped.Load
		})
		for range sessions {
			w := h.dial()
			w.send(cmd("AUTH", "wrong"))
			w.want(string(textWrongPass))
			w.Close()
		}
		told := func() (lines, more int) {
			return h.told("a client sent a password that is not the one it acts with", "and more wrong passwords of clients")
		}
		stopped.Store(stopped.Load().Add(time.Second)) // the sweeper may just have told of some of them
		eventually(t, "the others are counted", func() bool {
			lines, more := told()
			return lines == limit.MaxLinesOfOne && more == sessions-limit.MaxLinesOfOne
		})
		w := h.dial()
		w.send(cmd("AUTH", "wrong"))
		w.want(string(textWrongPass))
		if lines, _ := told(); lines != limit.MaxLinesOfOne+1 {
			t.Errorf("%d lines after a second, want %d", lines, limit.MaxLinesOfOne+1)
		}
	})
}

// A reply that nobody asked for ends the session whose own connection brought it, and the log says so at once: it means that something
// between dragontls and the backend, or the backend itself, cannot be trusted.
func TestUnaskedRepliesOnOwnConnectionsAreLogged(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const sessions = limit.MaxLines + 5
		var stopped clock.Atomic
		d := dragonflyWithUsers(t, "web")
		h := m.start(t, d.Addr(), func(c *Config) {
			swept(c)
			mappedTo(mapping("web"))(c)
			c.clock = stopped.Load
		})
		for i := range sessions {
			w := h.dialAs("web")
			w.do("*0\r\n", "CONFIG", "GET", "none") // over its own connection
			w.send(cmd("SET", "k", strconv.Itoa(i)))
			w.want("+OK\r\n")
			conn := -1
			for _, c := range d.Commands() {
				if strings.EqualFold(string(c.Args[0]), "CONFIG") {
					conn = c.Conn
				}
			}
			d.Send(conn, []byte("+STRAY\r\n"))
			if got := w.wantEnd(); got != "" {
				t.Errorf("the client got %q", got)
			}
		}
		h.wantClosed(closeBackendError, sessions)
		const message = "the backend sent a reply that nobody asked for: the session ends"
		stopped.Store(stopped.Load().Add(time.Second)) // the sweeper may just have told of some of them
		eventually(t, "the others are counted", func() bool {
			lines, more := h.told(message, "and more replies that nobody asked for")
			return lines == limit.MaxLinesOfOne && more == sessions-limit.MaxLinesOfOne
		})
		for _, line := range h.linesWith("message", message) {
			if line["level"] != "warn" || line["client"] != "web" || line["remote"] == nil || line["backend"] == nil || line["cure"] == nil {
				t.Fatalf("told %v", line)
			}
		}
		if n := h.Stats().BackendErrors["unasked"]; n != sessions {
			t.Errorf("%d counted, want %d", n, sessions)
		}
	})
}
