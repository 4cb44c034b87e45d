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
	eventually(h.t, "it drains", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.draining
	})
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
				if s.hand.Load() == handHalf {
					halves++
				}
			})
			return h.owed() == 2 && halves == 1 && h.pending.len() == 2
		})
		done := drain(h, 2*time.Second)
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
		h := m.start(t, addr, nil)
		w := h.dial()
		w.send(cmd("SLOW"))
		eventually(t, "it is owed a reply", func() bool { return h.owed() == 1 })
		done := drain(h, 100*time.Millisecond)
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
		h := m.start(t, addr, func(c *Config) { c.IdleTimeout = time.Second })
		busy := h.dial()
		busy.send(cmd("SLOW"))
		blocked := h.dial()
		blocked.send(cmd("BLPOP", "list", "0"))
		subscribed := h.dial()
		subscribed.do("*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n", "SUBSCRIBE", "ch")
		eventually(t, "both are owed a reply", func() bool { return h.owed() == 2 })
		for range 3 { // each of these lives for longer than the timeout after the others were last heard
			h.dial().wantCleanEnd()
		}
		h.wantClosed(closeIdle, 3)
		release()
		busy.want("+SLOW\r\n")
		busy.wantCleanEnd()
		h.wantClosed(closeIdle, 4)
		if n := h.Stats().Sessions; n != 2 {
			t.Errorf("%d sessions left, want the blocked and the subscribed one", n)
		}
	})
}

// The write timeout counts from the last byte taken: a slow reader lives for many times as long.
func TestSlowReaderIsNotClosed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const size = 24 << 20
		h := m.start(t, scripted(t, func(args []string) string {
			if args[0] == "GET" {
				return fmt.Sprintf("$%d\r\n%s\r\n", size, strings.Repeat("x", size))
			}
			return "+PONG\r\n"
		}), func(c *Config) { c.WriteTimeout = time.Second })
		w := h.dial()
		begin := time.Now()
		w.send(cmd("GET", "k"))
		w.want(fmt.Sprintf("$%d\r\n", size))
		buf := make([]byte, 1<<20)
		w.SetReadDeadline(time.Now().Add(patience))
		for left := size + 2; left > 0; {
			n, err := io.ReadFull(w.r, buf[:min(left, len(buf))])
			if err != nil {
				t.Fatalf("after %v: %v, closed %v", time.Since(begin), err, h.Stats().SessionsClosed)
			}
			left -= n
			time.Sleep(60 * time.Millisecond) // the pace of this client
		}
		w.do("+PONG\r\n", "PING")
	})
}

func TestPanicInASessionEndsOnlyThatOne(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), nil)
		h.mu.Lock()                                         // sessions start under it
		h.commands.byName["LOLWUT"] = &command{id: 1 << 20} // has no counter
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
