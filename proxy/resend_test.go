package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
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
				gates.of(asks).Stop()
			}
			close(gate)
			if tt.again {
				waits.want(valueOf("behind")) // though nobody reads the big one
				gates.of(asks).Open()
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
	s := &session{server: bareServer()}
	s.queue.init(netio.NewBuffers(0).NewAccount())
	s.queue.out = &outbox{}
	s.queue.owed, s.queue.onLane = 1, true
	s.client.eof = true
	up := &ownConn{Conn: &backend.Conn{Stream: near}}
	s.pump.up = up
	frame := cmd("GET", "big")
	looks := 0
	ended := make(chan bool)
	go func() {
		ended <- s.hold(func() bool {
			if looks++; looks == 1 {
				s.queue.out.resend, s.queue.onLane = []byte(frame), false // behind its look at what there is to do
			}
			return looks > 1 && s.queue.out.resend == nil
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

// A session whose command is asked again over its own connection waits for room on the lane at that moment, and gets it: its
// next command must not be answered first.
func TestNothingRidesALaneWhileTheOwnConnectionOwesWhatIsAskedAgain(t *testing.T) {
	t.Parallel()
	h, b, all := onOneLane(t, 2)
	asks, behind := all[0], all[1]
	l := h.lane()
	big := bulk(strings.Repeat("x", maxLaneReply+1))
	onLane := b.hold("big")
	asks.send(cmd("GET", "big"))
	<-onLane.reached
	behind.send(cmd("GET", "behind"))
	eventually(t, "both are in flight", func() bool { return l.inFlight() == 2 })
	l.occupy(laneCommands)
	asks.send(cmd("GET", "next"))
	eventually(t, "it waits for room", func() bool { return l.howManyWait() == 1 })
	onOwn := b.hold("big")
	onLane.say(big)
	<-onOwn.reached
	behind.want(valueOf("behind"))
	l.occupy(-laneCommands)
	eventually(t, "it waits no more", func() bool { return l.howManyWait() == 0 })
	onOwn.say(big)
	asks.wantLong(big + valueOf("next"))
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
	asks.get("afterwards")
}

// The lane's reader wants a command asked again just before the session's next one is submitted to the lane.
func TestNothingIsSubmittedToALaneOnceACommandIsToBeAskedAgain(t *testing.T) {
	t.Parallel()
	s := &session{server: bareServer()}
	s.queue.init(netio.NewBuffers(0).NewAccount())
	s.queue.out = &outbox{account: s.account(), resend: []byte(cmd("GET", "big"))}
	s.queue.owed, s.queue.onLane = 1, false
	if got, _ := s.admitLocked([]slot{{n: 1}}, 0, true); got != submitOwn || s.queue.owed != 1 || s.queue.onLane {
		t.Errorf("got %v, %d owed, by a lane: %v", got, s.queue.owed, s.queue.onLane)
	}
}
