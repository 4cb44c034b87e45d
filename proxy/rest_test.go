//go:build linux

package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

// rest has the session of a client rest, and waits until it does.
func (h *harness) rest(w *wire) *session {
	h.t.Helper()
	s := h.sessionOf(w)
	eventually(h.t, "the session rests", func() bool {
		h.ahead.Add(h.c.restAfter)
		h.restIdle()
		up, _ := s.upstreamNow()
		return s.rests.state.Load() == restResting && (up == nil || up.rests.state.Load() == restResting)
	})
	return s
}

// A session at rest has no reader; its client notices nothing.
func TestSessionThatRestsGoesOn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.restAfter = time.Second })
		w := h.dial()
		w.do("+OK\r\n", "SET", "k", "v")
		for range 20 {
			h.rest(w)
			w.do("$1\r\nv\r\n", "GET", "k")
		}
		h.rest(w)
		w.send("*2\r\n$3\r\nGET\r\n$1\r\n") // half a command keeps the reader
		s := h.sessionOf(w)
		eventually(t, "it is read", func() bool { return s.holds.Load() == holdsPart })
		h.ahead.Add(time.Hour)
		h.restIdle()
		w.send("k\r\n")
		w.want("$1\r\nv\r\n")
		h.rest(w)
		w.do("+OK\r\n", "QUIT")
		w.wantCleanEnd()
	})
}

// What ends a session, or wants its reader, finds it at rest too.
func TestSessionThatRestsEnds(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, tt := range map[string]struct {
			end    func(h *harness, w *wire)
			reason closeReason
		}{
			"its client leaves": {func(_ *harness, w *wire) { w.Close() }, closeClient},
			"its client resets": {func(_ *harness, w *wire) { w.breaks() }, closeClientError},
			"the server closes": {func(h *harness, _ *wire) { h.Close() }, closeShutdown},
			"the server drains": {func(h *harness, _ *wire) { drain(h, time.Second) }, closeDrain},
			"it is closed":      {func(h *harness, w *wire) { h.sessionOf(w).end(closeIdle) }, closeIdle},
			"it is killed":      {func(h *harness, w *wire) { h.sessionOf(w).kill(closeMemory) }, closeMemory},
			"its backend ends":  {func(h *harness, w *wire) { h.endBackendOf(w) }, closeBackend},
		} {
			t.Run(name, func(t *testing.T) {
				h := m.start(t, redisServer(t), func(c *Config) { c.restAfter = time.Second })
				w := h.dial()
				w.do("$7\r\nkeep me\r\n", "EVAL", "redis.call('SELECT', 1) return 'keep me'", "0") // on an own connection for life
				h.rest(w)
				tt.end(h, w)
				h.wantClosed(tt.reason, 1)
				eventually(t, "nobody is left", func() bool { return h.live() == 0 })
			})
		}
	})
}

// endBackendOf has redis-server close the own connection of w's session.
func (h *harness) endBackendOf(w *wire) {
	h.t.Helper()
	up, _ := h.sessionOf(w).upstreamNow()
	if up == nil {
		h.t.Fatal("the session has no connection of its own")
	}
	up.Socket.CloseWrite()
}

// silentBackend answers SUBSCRIBE and PING. It leaves a connection open on which it reads the end, until the test is over.
func silentBackend(t *testing.T) string {
	return fakeBackend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			switch args, err := readCommand(r); {
			case err != nil:
				<-t.Context().Done()
				return
			case args[0] == "SUBSCRIBE":
				io.WriteString(c, "*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n")
			default:
				io.WriteString(c, "+PONG\r\n")
			}
		}
	})
}

// A client leaves whose connection to the backend rests, and the backend does not care.
func TestSubscriberAtRestLeavesASilentBackend(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, silentBackend(t), func(c *Config) { c.restAfter, c.lingerTimeout = time.Second, 10*time.Millisecond })
		w := h.dial()
		w.do("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", "SUBSCRIBE", "ch")
		h.rest(w)
		w.Close()
		h.wantClosed(closeClient, 1)
		eventually(t, "nobody is left", func() bool { return h.live() == 0 })
	})
}

// The sweeper looks again and again at a session whose backend has a time limit.
func TestTimeLimitOfABackendIsNotRenewed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, silentBackend(t), func(c *Config) { c.restAfter, c.lingerTimeout = time.Second, 300*time.Millisecond })
		w := h.dial()
		w.do("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", "SUBSCRIBE", "ch")
		h.rest(w)
		w.Close()
		eventually(t, "the session has ended", func() bool {
			h.ahead.Add(h.c.restAfter)
			h.restIdle()
			return h.live() == 0
		})
	})
}

// A deadline that has passed and the mark that says why come and go together.
func TestWhoWakesASleeperLeavesTheMarkOfTheSweeper(t *testing.T) {
	t.Parallel()
	s := &session{server: bareServer()}
	s.rests.state.Store(restAsked)
	s.server.wake(s)
	if got := s.rests.state.Load(); got != restAsked {
		t.Errorf("state %d, want %d", got, restAsked)
	}
	s.rests.state.Store(restSettling)
	s.server.wake(s)
	if got := s.rests.state.Load(); got != restAwake {
		t.Errorf("state %d, want %d", got, restAwake)
	}
}

// After a refused RESET the pump authenticates its connection and reads the answer itself: nobody may interrupt that.
func TestPumpThatAuthenticatesIsNotAskedToRest(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var reset atomic.Bool
		var once sync.Once // the prober authenticates too
		again, answer := make(chan struct{}), make(chan struct{})
		h := m.start(t, scripted(t, func(args []string) string {
			switch args[0] {
			case "AUTH":
				if reset.Load() {
					once.Do(func() { close(again) })
					<-answer
				}
				return "+OK\r\n"
			case "RESET":
				reset.Store(true)
				return "-NOPERM no permissions\r\n"
			}
			return "+PONG\r\n"
		}), func(c *Config) { c.Backend.Credentials = credentials("", "secret") })
		w := h.dial()
		w.send(cmd("RESET"))
		<-again
		for range 20 {
			h.sessionOf(w).askPump()
		}
		close(answer)
		w.want("-NOPERM no permissions\r\n")
		w.do("+PONG\r\n", "PING")
	})
}

// A message comes to a subscriber at rest.
func TestSubscriberAtRestIsTold(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.restAfter = time.Second })
		w, other := h.dial(), h.dial()
		w.do("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", "SUBSCRIBE", "ch")
		h.rest(w)
		other.do(":1\r\n", "PUBLISH", "ch", "hello")
		w.want("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\nhello\r\n")
		h.rest(w)
		w.do("*3\r\n$11\r\nunsubscribe\r\n$2\r\nch\r\n:0\r\n", "UNSUBSCRIBE", "ch")
	})
}

// A client that has said nothing yet, or half of something in TLS, leaves nothing to its reader either: its next byte comes
// from the kernel.
func TestSessionRestsWhateverPartOfARecordHasCome(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.restAfter = time.Second })
		raw, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		cut := &cutConn{Conn: raw}
		w := newWire(t, tls.Client(cut, testPKI().clientConfig()))
		if err := w.Conn.(*tls.Conn).Handshake(); err != nil {
			t.Fatal(err)
		}
		s := h.rest(w)
		cut.between = func() {
			eventually(t, "the first part has come", func() bool { return s.account().Held() > netio.PageSize })
			h.rest(w)
		}
		value := strings.Repeat("x", 10000)
		for range 3 {
			w.do(bulk(value), "ECHO", value)
			h.rest(w)
		}
	})
}

// The sweeper may interrupt a reader that has got a command since it looked, and its last one at that.
func TestInterruptedReaderThatLingersReadsOn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		s := h.sessionOf(w)
		w.send(cmd("BLPOP", "nokey", "0") + "*x\r\n")
		eventually(t, "it lingers", func() bool {
			s.queue.mu.Lock()
			defer s.queue.mu.Unlock()
			return s.queue.slots.Len() > 0 && s.queue.slots.At(s.queue.slots.Len()-1).kind == slotFinal
		})
		s.client.conn.SetReadDeadline(time.Now())
		w.Close()
		eventually(t, "the session has ended", s.ended)
	})
}

// A reader that waits for a reply takes the sweeper's interruption for that of whom it waits for.
func TestSessionWhoseReaderWasAskedInVainIsAskedAgain(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.restAfter = time.Second })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		h.sessionOf(w).rests.state.Store(restAsked)
		h.rest(w)
	})
}
