package proxy

import (
	"strings"
	"testing"
	"time"
)

// What a writer writes is broken where the session ends: nothing is to be waited for.
func TestEndDoesNotWaitForWhoTakesNothing(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	value := strings.Repeat("x", slowValue)
	b.on(func(_ *laneConn, args []string) (string, bool) { return bulk(value), args[len(args)-1] == "big" })
	h := b.start(func(c *Config) { c.SessionBuffer, c.WriteTimeout = 64<<20, time.Hour })
	w := h.dial()
	w.get("0")
	s := h.sessionOf(w)
	w.send(strings.Repeat(cmd("GET", "big"), 20))
	eventually(t, "all replies have come, and the client takes none", func() bool { return !s.owes() && s.client.sock.stuck.Load() })
	s.end(closeLane)
	h.wantClosed(closeLane, 1)
}
