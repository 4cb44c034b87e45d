package proxy

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"dragontls/proxy/backend"
)

// A command is counted before a byte of it is written: who has its reply finds it counted.
func TestCommandIsCountedBeforeItIsWritten(t *testing.T) {
	t.Parallel()
	h, b, all := onOneLane(t, 2)
	before := h.Stats().CommandsLane["GET"]
	var direct, merged atomic.Uint64 // counted when a session writes, and when the writer does
	h.lane().replaceWith(t, func(up *backend.Conn) {
		tap(t, up, taps{write: func(call func() bool) bool {
			direct.CompareAndSwap(0, h.Stats().CommandsLane["GET"])
			return call()
		}})
		up.Stream = counting{up.Stream, func() { merged.CompareAndSwap(0, h.Stats().CommandsLane["GET"]) }}
	})
	held := b.hold("held")
	all[0].send(cmd("GET", "held"))
	<-held.reached
	if got := direct.Load(); got != before+1 {
		t.Errorf("%d are counted when a session writes the next after %d", got, before)
	}
	all[1].send(cmd("GET", "a"))
	eventually(t, "the writer writes", func() bool { return merged.Load() != 0 })
	if got := merged.Load(); got != before+2 {
		t.Errorf("%d are counted when the writer writes the next after %d", got, before+1)
	}
	held.release()
	all[0].want(valueOf("held"))
	all[1].want(valueOf("a"))
}

// The same on a session's own connection, in both modes.
func TestCommandIsCountedBeforeItIsWrittenToItsOwnConnection(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := newLaneBackend(t).start(func(c *Config) { c.Backend.Shared = m.shared })
		w := h.dial()
		w.do(bulk("info"), "INFO")
		var s *session
		h.each(func(n *session) { s = n }) // the only one
		up, _ := s.upstreamNow()
		seen := make(chan uint64, 1)
		eventually(t, "the session's reader has written", func() bool { return s.holds.Load() == holdsNothing })
		s.pump.mu.Lock() // which the session's reader takes before it writes again
		up.Stream = counting{up.Stream, func() { seen <- h.Stats().Commands["INFO"] }}
		s.pump.mu.Unlock()
		w.do(bulk("info"), "INFO")
		if got := <-seen; got != 2 {
			t.Errorf("%d are counted when the second is written", got)
		}
	})
}

// So are a reply and its bytes, the one that is kept back until a doomed transaction is discarded among them.
func TestReplyIsCountedBeforeItIsWritten(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h, gates := b.startGated(func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
	for name, tt := range map[string]struct{ before, send, want string }{
		"on a lane":             {send: cmd("GET", "a"), want: valueOf("a")},
		"on its own connection": {send: cmd("INFO"), want: bulk("info")},
		"of a doomed transaction": {
			before: cmd("MULTI") + cmd("SHUTDOWN"), send: cmd("EXEC"), want: string(textExecAbort),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := h.dial()
			w.get("0")
			if tt.before != "" {
				w.send(tt.before)
				w.want("+OK\r\n-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n")
			}
			bytes, answered := h.counted()
			var once sync.Once
			gates.of(w).Before(func() {
				once.Do(func() {
					if b, a := h.counted(); b != bytes+uint64(len(tt.want)) || a != answered+1 {
						t.Errorf("%d bytes of %d and %d replies are counted when the reply is written", b-bytes, len(tt.want), a-answered)
					}
				})
			})
			w.send(tt.send)
			w.want(tt.want)
		})
	}
}

// counted is how many bytes for clients are counted, and how many replies.
func (h *harness) counted() (bytes, replies uint64) {
	st := h.Stats()
	for _, n := range st.CommandSeconds.Counts {
		replies += n
	}
	return st.BytesOut, replies
}

// counting looks before each write.
type counting struct {
	net.Conn
	look func()
}

func (c counting) Write(p []byte) (int, error) {
	c.look()
	return c.Conn.Write(p)
}
