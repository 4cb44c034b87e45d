package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// lastBytes is a client that takes nothing any more while its last reply waits for it, and the gate behind which that is.
type lastBytes struct {
	h     *harness
	s     *session
	w     *wire
	gate  *proxytest.Gate
	want  string
	asked time.Time // when it was not yet asked for
}

func newLastBytes(t *testing.T, m mode, change func(*Config)) *lastBytes {
	t.Helper()
	const size = 6000 // what a lane's reader writes itself
	b := newLaneBackend(t)
	value := bulk(strings.Repeat("m", size))
	b.on(func(_ *laneConn, args []string) (string, bool) { return value, args[len(args)-1] == "last" })
	h, all := b.startGated(func(c *Config) {
		if c.Backend.Shared = m.shared; !m.shared {
			c.Recheck = nil
		}
		change(c)
	})
	l := &lastBytes{h: h, w: h.dial(), want: value}
	l.w.get("0")
	h.each(func(s *session) { l.s = s }) // the only one
	l.gate = all.of(l.w)
	l.gate.Stop()
	l.asked = time.Now()
	l.w.send(cmd("GET", "last"))
	eventually(t, "its last bytes wait", l.s.client.sock.Stuck)
	return l
}

// What a client's kernel has not taken is owed to it still: nothing that spares a busy session cuts it off.
func TestLastBytesThatWaitAreOwedStill(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		t.Run("by the idle timeout", func(t *testing.T) {
			t.Parallel()
			l := newLastBytes(t, m, func(c *Config) { c.IdleTimeout = time.Hour })
			idle := l.h.dial()
			idle.get("1")
			eventually(t, "the other is idle", func() bool { return l.s.owing() && l.h.idleSessions() == 1 })
			l.h.ahead.Add(2 * time.Hour)
			l.h.closeIdle()
			idle.wantCleanEnd()
			l.arrives(t)
			l.w.get("goes on")
		})
		t.Run("at the end of what the client sends", func(t *testing.T) {
			t.Parallel()
			l := newLastBytes(t, m, func(c *Config) { c.eofTimeout = time.Hour })
			c := l.w.Conn.(*tls.Conn)
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			c.NetConn().(*net.TCPConn).CloseWrite()
			eventually(t, "the session has seen it", func() bool { return l.s.pump.limit.Load() != 0 })
			l.arrives(t)
			l.w.wantCleanEnd()
		})
		t.Run("by a drain", func(t *testing.T) {
			t.Parallel()
			l := newLastBytes(t, m, func(*Config) {})
			// If nothing were owed to it, it would be ended and not cut, however late Drain looks at it.
			if err := l.h.Drain(50 * time.Millisecond); !errors.Is(err, ErrCut) {
				t.Errorf("Drain returns %v", err)
			}
			l.h.wantClosed(closeCut, 1)
		})
	})
}

// arrives lets the last bytes go, and reads them.
func (l *lastBytes) arrives(t *testing.T) {
	t.Helper()
	if l.s.idle() || !l.s.owing() || l.s.ended() {
		t.Errorf("idle %v, owing %v, ended %v", l.s.idle(), l.s.owing(), l.s.ended())
	}
	l.gate.Open()
	l.w.wantLong(l.want)
}

func (h *harness) idleSessions() (n int) {
	h.each(func(s *session) {
		if s.idle() {
			n++
		}
	})
	return n
}

func TestWriteTimeoutEndsWhoseLastBytesWait(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		l := newLastBytes(t, m, func(c *Config) { c.WriteTimeout = time.Hour })
		if left := l.gate.Deadline().Sub(l.asked); left < time.Hour {
			t.Errorf("they may wait for %v after they were asked for", left)
		}
		l.gate.Pass(2 * time.Hour)
		l.h.wantClosed(closeSlow, 1)
		if got := l.w.wantEnd(); got != "" {
			t.Errorf("%d bytes came", len(got))
		}
	})
}

// What a writer writes is broken where the session ends: nothing is to be waited for.
func TestEndDoesNotWaitForWhoTakesNothing(t *testing.T) {
	t.Parallel()
	l := newLastBytes(t, mode{shared: true}, func(c *Config) { c.WriteTimeout, c.closeTimeout = time.Hour, time.Hour })
	eventually(t, "a writer waits", l.s.queue.hasTurn)
	l.s.end(closeLane)
	l.h.wantClosed(closeLane, 1)
}
