package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A session asks for a big value and does not read it: those who wait behind it on the lane get theirs at once, because it
// is asked again over the session's own connection.
func TestNobodyWaitsForWhoReadsABigValue(t *testing.T) {
	big := strings.Repeat("big value ", 300_000)
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
			h, gates := b.startGated(func(c *Config) { c.SessionBuffer = 64 << 10 })
			asks, waits := h.dial(), h.dial()
			asks.get("x")
			waits.get("y")
			asks.send(tt.send)
			eventually(t, "the lane has it", func() bool { return b.count(strings.Split(tt.send, "\r\n")[2], "") > 0 && h.lane().inFlight() > 0 })
			waits.send(cmd("GET", "behind"))
			eventually(t, "another waits", func() bool { return h.sessionOf(waits).owes() })
			if tt.again {
				gates.of(asks).stop()
			}
			close(gate)
			if tt.again {
				waits.want(valueOf("behind")) // though nobody reads the big one
				gates.of(asks).open()
			}
			asks.SetReadDeadline(time.Now().Add(patience))
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

// What a session is to ask again is asked even where it begins to wait at that moment, and its client sends no more: then
// nothing else would wake it.
func TestWhatIsAskedAgainIsSeenByWhoBeginsToWait(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	s := &session{server: &Server{}, shared: true, sharing: &sharing{}}
	s.queue.init(newBuffers(0).open())
	s.queue.out = &outbox{}
	s.queue.owed, s.queue.onLane = 1, true
	s.client.eof = true
	up := &backendConn{conn: near}
	s.pump.up = up
	frame := cmd("GET", "big")
	looks := 0
	ended := make(chan bool)
	go func() {
		ended <- s.hold(func() bool {
			if looks++; looks == 1 {
				s.queue.out.refetch, s.queue.onLane = []byte(frame), false // behind its look at what there is to do
			}
			return looks > 1 && s.queue.out.refetch == nil
		})
	}()
	far.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(frame))
	if _, err := io.ReadFull(far, got); err != nil || string(got) != frame {
		s.queue.close()
		t.Errorf("asked %q, %v", got, err)
	}
	<-ended
}
