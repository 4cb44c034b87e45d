package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// slowTail is a client that takes nothing any more, while the end of its last reply waits for it.
func slowTail(t *testing.T, change func(*Config)) (h *harness, s *session, c *tls.Conn, want int) {
	t.Helper()
	const value = 6000 // a lane's reader writes it itself
	b := newLaneBackend(t)
	b.on(func(_ *laneConn, args []string) (string, bool) {
		return bulk(strings.Repeat("m", value)), args[len(args)-1] == "mid"
	})
	h = b.start(change)
	raw, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	small(raw, nil)
	c = tls.Client(raw, testPKI().clientConfig())
	w := newWire(t, c)
	w.get("0")
	s = h.sessionOf(w)
	small(nil, s.client.sock.Conn)
	stuck := s.client.sock.stuck.Load
	for !stuck() {
		w.send(cmd("GET", "mid"))
		want += len(bulk(strings.Repeat("m", value)))
		eventually(t, "it is answered", func() bool { return !s.owes() && (stuck() || !s.hasWriters()) })
		if stuck() {
			time.Sleep(50 * time.Millisecond) // the kernels may still agree on more
		}
	}
	return h, s, c, want
}

func TestWriteTimeoutEndsWhoseLastBytesWait(t *testing.T) {
	t.Parallel()
	h, _, _, _ := slowTail(t, func(c *Config) { c.WriteTimeout = time.Second })
	h.wantClosed(closeSlow, 1)
}

func TestLastBytesThatWaitAreOwedStill(t *testing.T) {
	t.Parallel()
	_, s, c, want := slowTail(t, nil)
	if s.idle() || !s.owing() {
		t.Error("the session is settled")
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.NetConn().(*net.TCPConn).CloseWrite()
	eventually(t, "the end of what the client sends is seen", func() bool {
		fin, _ := s.client.sock.hungUp()
		return fin
	})
	if got, err := io.ReadAll(c); len(got) != want || err != nil {
		t.Errorf("%d bytes of %d came, %v", len(got), want, err)
	}
}

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
