package proxy

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"
)

// A client may write its whole pipeline before it reads anything, as over a direct connection: its replies wait for it.
func TestWholePipelineIsWrittenBeforeAReplyIsRead(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const commands, value = 300_000, 10
		h, gates := m.startGated(t, redisServer(t), func(c *Config) { c.followTimeout = 20 * time.Millisecond })
		w := h.dial()
		w.do("+OK\r\n", "SET", "k", strings.Repeat("v", value))
		h.pass(stayInterval)
		w.do(bulk(strings.Repeat("v", value)), "GET", "k")
		gates.of(w).Stop() // from here on the client takes nothing
		b := bufio.NewWriterSize(w, 16<<10)
		w.SetWriteDeadline(time.Now().Add(patience))
		for range commands {
			if _, err := b.WriteString(cmd("GET", "k")); err != nil {
				t.Fatalf("the client cannot send on: %v", err)
			}
		}
		if err := b.Flush(); err != nil {
			t.Fatalf("the client cannot send on: %v", err)
		}
		gates.of(w).Open()
		w.SetReadDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(io.LimitReader(w.r, int64(commands*len(bulk(strings.Repeat("v", value))))))
		if err != nil || string(got) != strings.Repeat(bulk(strings.Repeat("v", value)), commands) {
			t.Fatalf("%d bytes came: %v", len(got), err)
		}
		w.do("+PONG\r\n", "PING")
		if n := h.closedFor(closeSlow); n != 0 {
			t.Errorf("%d slow clients", n)
		}
	})
}

// A client that takes no reply for WRITE_TIMEOUT is closed, but not while it still sends: WRITE_TIMEOUT begins anew with what
// it sends.
func TestClientThatStillSendsIsNotSlow(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h, gates := m.startGated(t, redisServer(t), func(c *Config) { c.WriteTimeout, c.closeTimeout = time.Hour, time.Hour })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		for name, big := range map[string]int{"small replies": 10, "big replies": 100_000} {
			value := strings.Repeat("v", big)
			w.do("+OK\r\n", "SET", "k", value)
			gate := gates.of(w)
			gate.Stop()
			sent := 0
			for range 3 {
				waited := gate.Waited()
				w.send(cmd("GET", "k"))
				if sent++; sent == 1 {
					eventually(t, "a write waits for the client", func() bool { return gate.Waited() > waited })
					continue
				}
				before := h.Stats().BytesIn
				w.send(cmd("GET", "k"))
				sent++
				eventually(t, "it was read", func() bool { return h.Stats().BytesIn > before })
				gate.Pass(2 * time.Hour)
				eventually(t, "a write waits again", func() bool { return gate.Waited() > waited || h.live() == 0 })
			}
			gate.Open()
			w.want(strings.Repeat(bulk(value), sent))
			if h.live() == 0 {
				t.Fatalf("%s: the session has ended: %v", name, h.Stats().SessionsClosed)
			}
		}
		gate := gates.of(w)
		gate.Stop()
		waited := gate.Waited()
		w.send(cmd("GET", "k"))
		eventually(t, "a write waits for the client", func() bool { return gate.Waited() > waited })
		gate.Pass(2 * time.Hour)
		h.wantClosed(closeSlow, 1)
	})
}
