package proxy

import (
	"slices"
	"testing"
	"time"
)

// Half a push has been passed on when the connection that brings it is given up for being idle. Its rest would never come, and nothing
// could be written to the client any more, so the session ends.
func TestConnectionGivenUpInTheMiddleOfAPushEndsItsSession(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	const half = ">2\r\n$10\r\ninvalidate\r\n$4\r\nha"
	say := b.infoThen(w, func(c *laneConn) {
		c.w.WriteString(half)
		c.w.Flush()
		<-b.done
	})
	close(say)
	w.want(half)
	h.closeUnused(h.sessionOf(w))
	w.endsUnanswered()
	h.wantClosed(closeBackendError, 1)
}

// A connection that was opened without the database of its session, for a RESET, is as good as any after it. A RESET that is refused later
// does not take it from a session that watches keys on it.
func TestRefusedResetKeepsWatchedKeysOnAConnectionThatWasBare(t *testing.T) {
	t.Parallel()
	for name, ties := range map[string]string{"WATCH": cmd("WATCH", "k"), "MULTI": cmd("MULTI")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(func(c *Config) { c.Backend.Credentials = credentials("", "") })
			w := h.dial()
			w.get("0")
			h.silent(w, []string{"SELECT", "7"})
			b.on(func(_ *laneConn, args []string) (string, bool) {
				return "-BUSY Redis is busy running a script.\r\n", args[0] == "SELECT"
			})
			w.do("+RESET\r\n", "RESET")
			w.send(ties)
			w.want("+OK\r\n")
			b.on(func(_ *laneConn, args []string) (string, bool) { return "-NOPERM no\r\n", args[0] == "RESET" })
			w.do("-NOPERM no\r\n", "RESET")
			w.send(cmd("DISCARD"))
			w.want("+OK\r\n")
			for _, c := range b.connsWith(false, "DISCARD") {
				if !slices.ContainsFunc(c.commands(), func(args []string) bool { return args[0] == name }) {
					t.Errorf("DISCARD came on another connection than %s", name)
				}
			}
		})
	}
}

// If what came before a SCRIPT KILL in the same write was not sent, the KILL is not sent either: a prefix of what the client sent has run.
func TestKillIsNotSentAfterWhatWasLost(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.unavailableTimeout = 500 * time.Millisecond })
	w := h.dial()
	w.get("0")
	h.silent(w, []string{"SELECT", "7"})
	b.on(func(c *laneConn, args []string) (string, bool) {
		if args[0] == "SELECT" {
			c.reset()
		}
		return "", false
	})
	w.send(cmd("GET", "a") + cmd("SCRIPT", "KILL"))
	w.want(string(textUnavailable))
	// From here on a connection could be had.
	b.on(func(_ *laneConn, args []string) (string, bool) { return "+OK\r\n", args[0] == "SCRIPT" })
	w.want(string(textUnavailable))
	if n := b.count("SCRIPT", ""); n != 0 {
		t.Errorf("%d KILLs were sent", n)
	}
	w.goesOn("+OK\r\n", "SCRIPT", "KILL") // once the loss is over
	if n := b.count("SCRIPT", ""); n != 1 {
		t.Errorf("%d KILLs were sent after that", n)
	}
}
