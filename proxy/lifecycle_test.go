package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/netio"
	"dragontls/proxy/proxytest"
)

// slowBackend answers SLOW once released; everything else at once.
func slowBackend(t testing.TB) (addr string, release func()) {
	t.Helper()
	hold := make(chan struct{})
	d := dragonflyAt(t, proxytest.Options{})
	d.SetOnCommand(func(_ int, args [][]byte) ([]byte, bool) {
		if string(args[0]) != "SLOW" {
			return nil, false
		}
		select {
		case <-hold:
		case <-d.Done():
		}
		return []byte("+SLOW\r\n"), true
	})
	return d.Addr(), func() { close(hold) }
}

func (h *harness) owed() (n int) {
	h.each(func(s *session) {
		s.queue.mu.Lock()
		n += s.queue.owed
		s.queue.mu.Unlock()
	})
	return n
}

func drain(h *harness, timeout time.Duration) chan error {
	done := make(chan error, 1)
	go func() { done <- h.Drain(timeout) }() // ends within the timeout; the test waits for it
	eventually(h.t, "its listener is closed, and Serve has returned", func() bool { return len(h.done) == 1 })
	return done
}

func TestDrainSaysGoodbyeToEverybody(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr, release := slowBackend(t)
		h := m.start(t, addr, nil)
		idle, busy, blocked, subscribed, half := h.dial(), h.dial(), h.dial(), h.dial(), h.dial()
		idle.do("+PONG\r\n", "PING")
		busy.send(cmd("SLOW"))
		blocked.send(cmd("BLPOP", "list", "0"))
		subscribed.do("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", "SUBSCRIBE", "ch")
		half.do("+PONG\r\n", "PING")
		half.send("*2\r\n$4\r\nECHO\r\n$5\r\nhe")
		silent := dialRaw(t, h.addr)
		shaking := tls.Client(dialRaw(t, h.addr), testPKI().clientConfig())
		eventually(t, "all wait", func() bool {
			halves := 0
			h.each(func(s *session) {
				if s.holds.Load() == holdsPart {
					halves++
				}
			})
			return h.owed() == 2 && halves == 1 && h.pending.len() == 2
		})
		done := drain(h, 6*time.Second)
		if _, err := net.Dial("tcp", h.addr); err == nil {
			t.Error("the listener is still open")
		}
		if err := shaking.Handshake(); err != nil { // one that had begun may finish
			t.Error(err)
		}
		idle.wantCleanEnd()
		if b, err := io.ReadAll(shaking); err != nil || len(b) > 0 {
			t.Errorf("behind its handshake: %q, %v", b, err)
		}
		release()
		busy.want("+SLOW\r\n")
		busy.wantCleanEnd()
		blocked.wantCleanEnd()
		subscribed.wantCleanEnd()
		half.wantCleanEnd()
		silent.Read(make([]byte, 1))
		if err := <-done; err != nil {
			t.Errorf("drain: %v", err)
		}
		if got := h.closedFor(closeDrain); got != 6 || h.Stats().Sessions != 0 {
			t.Errorf("closed %v, %d sessions left", h.Stats().SessionsClosed, h.Stats().Sessions)
		}
	})
}

func TestDrainReportsWhatItCuts(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr, _ := slowBackend(t)
		h := m.start(t, addr, func(c *Config) { c.goodbyeTimeout = patience })
		w := h.dial()
		w.send(cmd("SLOW"))
		eventually(t, "it is owed a reply", func() bool { return h.owed() == 1 })
		done := drain(h, 100*time.Millisecond) // it is cut however much longer that takes
		w.wantCleanEnd()
		if err := <-done; !errors.Is(err, ErrCut) {
			t.Errorf("got %v, want ErrCut", err)
		}
		h.wantClosed(closeCut, 1)
	})
}

func TestDrainWithoutSessionsEndsAtOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, "127.0.0.1:1", nil)
		if err := <-drain(h, time.Hour); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseDuringDrain(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr, _ := slowBackend(t)
		h := m.start(t, addr, nil)
		w := h.dial()
		w.send(cmd("SLOW"))
		eventually(t, "it is owed a reply", func() bool { return h.owed() == 1 })
		done := drain(h, time.Hour)
		h.Close()
		if err := <-done; !errors.Is(err, ErrCut) {
			t.Errorf("got %v, want ErrCut", err)
		}
		h.wantClosed(closeShutdown, 1)
	})
}

func TestCloseEndsHandshakesAndSessions(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr, _ := slowBackend(t)
		h := m.start(t, addr, nil)
		for range 10 {
			h.dial().send(cmd("SLOW"))
			dialRaw(t, h.addr)
		}
		eventually(t, "all are there", func() bool { return h.owed() == 10 && h.pending.len() == 10 })
		h.Close()
		if st := h.Stats(); st.Sessions != 0 || st.Handshaking != 0 || st.BackendConnections != 0 || st.SessionsClosed[string(closeShutdown)] != 10 {
			t.Errorf("left over: %+v", st)
		}
	})
}

func TestIdleTimeoutSparesWhoWaits(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr, release := slowBackend(t)
		h := m.start(t, addr, func(c *Config) { swept(c); c.IdleTimeout = time.Hour })
		busy := h.dial()
		busy.send(cmd("SLOW"))
		blocked := h.dial()
		blocked.send(cmd("BLPOP", "list", "0"))
		subscribed := h.dial()
		subscribed.do("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", "SUBSCRIBE", "ch")
		idle, active := h.dial(), h.dial()
		idle.do("+PONG\r\n", "PING")
		active.do("+PONG\r\n", "PING")
		eventually(t, "two are owed a reply, and two are idle", func() bool { return h.owed() == 2 && h.idleSessions() == 2 })
		const most = 40 * time.Minute // of the timeout
		h.pass(most)
		active.do("+PONG\r\n", "PING")
		h.pass(most)
		idle.wantCleanEnd() // the sweeper has looked at all sessions now, or does it below
		h.closeIdle()
		h.wantClosed(closeIdle, 1)
		active.do("+PONG\r\n", "PING")
		release()
		busy.want("+SLOW\r\n")
		eventually(t, "nothing is owed to it any more", func() bool { return h.owed() == 1 && h.idleSessions() == 2 })
		h.pass(2 * most)
		busy.wantCleanEnd()
		active.wantCleanEnd()
		h.closeIdle()
		h.wantClosed(closeIdle, 3)
		pushes := h.dial()
		pushes.do(":1\r\n", "PUBLISH", "ch", "hello")
		pushes.do(":1\r\n", "LPUSH", "list", "v")
		subscribed.want("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\nhello\r\n")
		blocked.want("*2\r\n$4\r\nlist\r\n$1\r\nv\r\n")
	})
}

// The write timeout counts from the last byte taken: a client that takes a record now and then lives for many times as long,
// since what is written next has all of it again.
func TestSlowReaderIsNotClosed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const records = 20
		value := bulk(strings.Repeat("x", 2*records*netio.PageSize))
		h, all := m.startGated(t, scripted(t, func(args []string) string {
			if args[0] == "GET" {
				return value
			}
			return "+PONG\r\n"
		}), func(c *Config) { c.WriteTimeout = time.Hour })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		gate := all.of(w)
		before, taken := gate.Waited(), time.Now()
		gate.Stop()
		w.send(cmd("GET", "k"))
		read := make(chan string, 1)
		go func() { // ends with the value or the connection
			got := make([]byte, len(value))
			n, _ := io.ReadFull(w.r, got)
			read <- string(got[:n])
		}()
		for i := range records {
			eventually(t, fmt.Sprintf("record %d waits", i), func() bool { return gate.Waited() > before })
			if left := gate.Deadline().Sub(taken); left < time.Hour {
				t.Errorf("record %d may wait for %v after the one before it", i, left)
			}
			before, taken = gate.Waited(), time.Now()
			gate.Admit()
		}
		gate.Open()
		if got := <-read; got != value {
			t.Fatalf("%d bytes of %d came, closed %v", len(got), len(value), h.Stats().SessionsClosed)
		}
		w.do("+PONG\r\n", "PING")
	})
}

func TestPanicInASessionEndsOnlyThatOne(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), nil)
		h.mu.Lock() // sessions start under it
		c, _, _ := h.settings.Load().commands.Lookup([]byte("LOLWUT"))
		c.ID = 1 << 20 // has no counter
		h.mu.Unlock()
		good := h.dial()
		good.do("+PONG\r\n", "PING")
		for range 3 {
			w := h.dial()
			w.send(cmd("LOLWUT"))
			w.wantEnd()
		}
		h.wantClosed(closeInternalError, 3)
		good.do("+PONG\r\n", "PING")
		eventually(t, "no backend connection is left", func() bool { return h.Stats().BackendConnections == 1 })
		if n := h.panics.Swap(0); n != 3 { // the harness wants none
			t.Errorf("%d panics, want 3", n)
		}
	})
}
