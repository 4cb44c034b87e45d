package proxy

import (
	"strings"
	"testing"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/command"
	"dragontls/proxy/limit"
)

// Denied commands are counted by what denied them, each kind from the start, and the log says whose they were and how they are called,
// without any argument.
func TestDeniedCommandsAreCountedByKind(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		j := ruledClient(t, command.RuleOptions{Deny: []string{"INCR"}})
		h := m.start(t, webBackend(t, "dragonfly"), func(c *Config) {
			mappedTo(j)(c)
			c.DenyCommands, c.Backend.RefusePasswords = []string{"SHUTDOWN", "CONFIG|SET"}, true
		})
		w := h.dial()
		if got := h.Stats().Denied; len(got) != int(deniedKinds) {
			t.Errorf("at the start there are %v", got)
		}
		w.do("+PONG\r\n", "PING")
		for _, args := range [][]string{
			{"SHUTDOWN", "secret-1"}, {"config", "set", "secret-2", "x"}, // deny_commands
			{"INCR", "secret-3"},                                                                                   // users_file
			{"AUTH", "web", "secret-4"},                                                                            // authentication
			{"GET\x00", "secret-5"}, {"CONFIG", "SET\x00", "secret-6"}, {"secret-7" + strings.Repeat("x", 70<<10)}, // form
		} {
			w.send(cmd(args...))
			if got := w.line(); !strings.HasPrefix(got, "-") {
				t.Errorf("%.40q: got %q", args, got)
			}
		}
		w.send(cmd("MULTI") + cmd("INCR", "secret-8") + cmd("SUBSCRIBE", "secret-9") + cmd("DISCARD"))
		w.want("+OK\r\n" + forbidden("the command INCR") + string(textDoomed) + "+OK\r\n")
		want := map[string]uint64{"deny_commands": 2, "users_file": 2, "authentication": 1, "transaction": 1, "form": 3}
		got := h.Stats().Denied
		for by, n := range want {
			if got[by] != n {
				t.Errorf("%s: denied %d, want %d", by, got[by], n)
			}
			if lines := h.linesWith("by", by); len(lines) != int(n) || lines[0]["message"] != "command denied" || lines[0]["client"] != "client" ||
				lines[0]["identity"] == nil || lines[0]["user"] != "web" || lines[0]["remote"] == nil {
				t.Errorf("%s: logged %v, want %d lines", by, lines, n)
			}
		}
		var names []string
		for _, line := range h.linesWith("message", "command denied") {
			names = append(names, line["command"].(string))
		}
		if got := strings.Join(names, " "); got != "SHUTDOWN CONFIG INCR AUTH GET CONFIG other INCR SUBSCRIBE" {
			t.Errorf("named %s", got)
		}
		if strings.Contains(h.logs.String(), "secret-") {
			t.Errorf("an argument in the log:\n%s", h.logs)
		}
	})
}

// A client that goes on sending denied commands neither floods the log nor hides those of others.
func TestDeniedCommandsDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const tries = 500
		var stopped clock.Atomic
		h := m.start(t, redisServer(t), func(c *Config) {
			swept(c)
			c.DenyCommands, c.Recheck = []string{"SHUTDOWN"}, (&judgement{}).recheck
			c.clock = stopped.Load
		})
		w := h.dialAs("noisy")
		w.send(strings.Repeat(cmd("SHUTDOWN"), tries))
		for range tries {
			if got := w.line(); !strings.HasPrefix(got, "-NOPERM") {
				t.Fatalf("got %q", got)
			}
		}
		if got := h.dialAs("hidden").answer("SHUTDOWN"); !strings.HasPrefix(got, "-NOPERM") { // in the same second
			t.Fatalf("got %q", got)
		}
		if n := len(h.linesWith("client", "hidden")); n != 1 {
			t.Errorf("%d lines about the other client, want 1", n)
		}
		stopped.Store(stopped.Load().Add(time.Second)) // the sweeper may just have told of some of them
		eventually(t, "the others are counted", func() bool { return h.more("deny_commands") == tries-limit.MaxLinesOfOne })
		if n := len(h.linesWith("message", "command denied")); n != limit.MaxLinesOfOne+1 {
			t.Errorf("%d lines, want %d and one of the other client", n, limit.MaxLinesOfOne)
		}
		if n := h.Stats().Denied["deny_commands"]; n != tries+1 {
			t.Errorf("%d counted, want %d", n, tries+1)
		}
	})
}
