package proxy

import (
	"io"
	"strings"
	"testing"
	"time"
)

// A session asks for a big value and does not read it: those who wait behind it on the lane get theirs at once, because it
// is asked again over the session's own connection.
func TestNobodyWaitsForWhoReadsABigValue(t *testing.T) {
	big := strings.Repeat("big value ", 3<<20)
	for name, tt := range map[string]struct {
		send, want string
		again      bool
	}{
		"alone":                {cmd("GET", "big"), bulk(big), true},
		"and the end":          {cmd("GET", "big") + "*x\r\n", bulk(big) + "-ERR Protocol error", true},
		"with one behind it":   {cmd("GET", "big") + cmd("GET", "k"), bulk(big) + valueOf("k"), false},
		"in a transaction":     {cmd("MULTI") + cmd("GET", "big") + cmd("EXEC"), "+OK\r\n+QUEUED\r\n*1\r\n" + bulk(big), false},
		"by a command of more": {cmd("GETDEL", "big"), bulk(big), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			gate := make(chan struct{})
			b.on(func(c *laneConn, args []string) (string, bool) {
				if !c.lane || len(args) < 2 || args[1] != "big" || args[0] == "ECHO" {
					if len(args) == 2 && args[1] == "big" {
						return bulk(big), true
					}
					return "", false
				}
				<-gate
				if c.multi {
					c.queued = append(c.queued, bulk(big))
					return "+QUEUED\r\n", true
				}
				return bulk(big), true
			})
			h := b.start(func(c *Config) { c.SessionBuffer = 64 << 10 })
			asks, waits := h.dial(), h.dial()
			asks.get("x")
			waits.get("y")
			asks.send(tt.send)
			eventually(t, "the lane has it", func() bool { return b.count(strings.Split(tt.send, "\r\n")[2], "") > 0 && h.lane().inFlight() > 0 })
			waits.send(cmd("GET", "behind"))
			eventually(t, "another waits", func() bool { return h.sessionOf(waits).owes() })
			close(gate)
			if tt.again {
				waits.want(valueOf("behind")) // though nobody reads the big one
			}
			asks.SetReadDeadline(time.Now().Add(20 * time.Second))
			got := make([]byte, len(tt.want))
			if n, err := io.ReadFull(asks.r, got); err != nil || string(got) != tt.want {
				t.Fatalf("got %d bytes, %v", n, err)
			}
			if !tt.again {
				waits.want(valueOf("behind"))
			}
			times := 1
			if tt.again {
				times = 2
			}
			if n := b.count("GET", "big") + b.count("GETDEL", "big"); n != times {
				t.Errorf("asked %d times, want %d", n, times)
			}
		})
	}
}
