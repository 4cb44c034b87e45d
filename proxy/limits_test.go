package proxy

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/limit"
	"dragontls/proxy/proxytest"
)

// limitOf returns the limit with this label.
func (h *harness) limitOf(of string) Limit {
	h.t.Helper()
	for _, l := range h.Limits() {
		if l.Of == of {
			return l
		}
	}
	h.t.Fatalf("no limit %s", of)
	return Limit{}
}

// linesWith returns the log lines so far with this field.
func (h *harness) linesWith(field, value string) (found []map[string]any) {
	h.t.Helper()
	for line := range strings.Lines(h.logs.String()) {
		if !strings.HasSuffix(line, "\n") {
			continue // it is being written
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			h.t.Fatalf("%v: %s", err, line)
		}
		if fields[field] == value {
			found = append(found, fields)
		}
	}
	return found
}

// wantTold wants one warning about a limit that was reached once, with its name and value.
func (h *harness) wantTold(of string, value int64) map[string]any {
	h.t.Helper()
	l := h.limitOf(of)
	if l.Reached != 1 || l.Value != value {
		h.t.Errorf("limit %+v, want one of %d that was reached once", l, value)
	}
	lines := h.linesWith("limit", l.Name)
	if len(lines) != 1 || lines[0]["level"] != "warn" || lines[0]["count"] != 1.0 || value > 0 && lines[0]["value"] != float64(value) {
		h.t.Fatalf("logged %v", lines)
	}
	return lines[0]
}

// A client beyond MAX_CONNECTIONS is told so over TLS, and its connection ends in order. The log says it at once, and then how often.
func TestFullProxySaysSo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { swept(c); c.MaxConnections = 1; c.Recheck = (&judgement{}).recheck })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		refused := func(send string) {
			t.Helper()
			late := h.dialAs("late")
			late.send(send)
			late.want("-ERR dragontls: the proxy has its most connections (MAX_CONNECTIONS)\r\n")
			late.wantCleanEnd()
		}
		refused(cmd("PING"))
		line := h.wantTold("max_connections", 1)
		if line["subject"] != "CN=late" || line["remote"] == nil {
			t.Errorf("the line does not say who: %v", line)
		}
		if l := h.limitOf("max_connections"); l.Used != 1 {
			t.Errorf("%d sessions in use, want 1", l.Used)
		}
		for range 5 {
			refused("")
		}
		if n := len(h.linesWith("limit", "MAX_CONNECTIONS")); n != 1 {
			t.Errorf("%d lines at once, want 1", n)
		}
		h.ahead.Add(limit.Interval)
		eventually(t, "the others are told", func() bool { return len(h.linesWith("limit", "MAX_CONNECTIONS")) == 2 })
		if second := h.linesWith("limit", "MAX_CONNECTIONS")[1]; second["count"] != 5.0 {
			t.Errorf("then %v, want the other 5", second)
		}
		h.wantClosed(closeFull, 6)
		w.do("+OK\r\n", "QUIT")
		w.wantEnd()
		eventually(t, "a place is free", func() bool { return h.Stats().Sessions == 0 })
		h.dial().do("+PONG\r\n", "PING")
	})
}

// Those that are refused hold no more places than there are for handshakes, and give them to others.
func TestRefusedClientsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const places = 4
		h := m.start(t, redisServer(t), func(c *Config) {
			c.MaxConnections, c.MaxHandshakes, c.lingerTimeout, c.doorTimeout = 1, places, patience, -1
		})
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		for range places {
			h.dial().want(string(textFull)) // its client goes on with nothing
		}
		if n := h.pending.len(); n != places {
			t.Errorf("%d wait for their clients, want %d", n, places)
		}
		if _, err := tls.Dial("tcp", h.addr, testPKI().clientConfig()); err == nil {
			t.Error("one more was let in")
		}
		w.do("+OK\r\n", "QUIT")
		w.wantEnd()
		eventually(t, "a session is free", func() bool { return h.Stats().Sessions == 0 })
		h.dial().do("+PONG\r\n", "PING")
	})
}

func TestClientAtItsLimitIsToldSo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) {
			c.MaxPerIdentity, c.Recheck, c.placeTimeout = 1, (&judgement{}).recheck, time.Millisecond
		})
		w := h.dialAs("web")
		w.do("+PONG\r\n", "PING")
		late := h.dialAs("web")
		late.send(cmd("SET", "secret-key", "x"))
		late.want("-ERR dragontls: this client has its most connections (MAX_CONNECTIONS_PER_IDENTITY)\r\n")
		late.wantCleanEnd()
		h.wantClosed(closeIdentityFull, 1)
		if line := h.wantTold("max_connections_per_identity", 1); line["client"] != "web" || line["serial"] == nil || line["identity"] == nil {
			t.Errorf("the line does not say who: %v", line)
		}
		if l := h.limitOf("max_connections_per_identity"); l.Used != 1 {
			t.Errorf("%d sessions in use, want 1", l.Used)
		}
		w.do("$-1\r\n", "GET", "secret-key") // what a refused client sends is not run
		h.dialAs("other").do("+PONG\r\n", "PING")
	})
}

// However many sessions of a client are refused, a quarter of as many as it may have wait for a place, and a quarter for it to read
// why.
func TestRefusedSessionsOfOneClientAreBounded(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const most, aside = 8, 2
		h := m.start(t, redisServer(t), func(c *Config) {
			c.MaxPerIdentity, c.Recheck = most, (&judgement{}).recheck
			c.lingerTimeout, c.lingerLimit = patience, patience
		})
		for range most {
			h.dialAs("web").do("+PONG\r\n", "PING")
		}
		for range aside {
			h.dialAs("web")
		}
		eventually(t, "two wait for a place", func() bool { return h.waiting() == aside })
		for range 20 {
			h.dialAs("web").want(string(textIdentityFull)) // and stays
		}
		eventually(t, "few are left", func() bool { return h.Stats().Sessions == most+2*aside })
		h.dialAs("other").do("+PONG\r\n", "PING")
	})
}

func TestFullBackendConnectionsAreTold(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) { c.Backend.MaxConnections = 1 })
		a, b := h.dial(), h.dial()
		a.send(cmd("BLPOP", "a", "0"))
		eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
		b.send(cmd("BLPOP", "b", "0"))
		eventually(t, "the other waits", func() bool { return h.limitOf("backend_max_connections").Reached == 1 })
		eventually(t, "the log tells", func() bool { return len(h.linesWith("limit", "BACKEND_MAX_CONNECTIONS")) == 1 })
		h.wantTold("backend_max_connections", 1)
		if l := h.limitOf("backend_max_connections"); l.Used != 1 {
			t.Errorf("%d connections in use, want 1", l.Used)
		}
	})
}

func TestMemoryLimitOfAClientIsTold(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const most = 8 << 20
		h := m.start(t, memoryBackend(t, 10), func(c *Config) { c.BufferLimit = most; twoIdentities(c) })
		greed(h, 2*most/4/len(halfCommand), func(w *wire) { io.WriteString(w, halfCommand) })
		eventually(t, "some are closed", func() bool { return h.closedFor(closeMemory) > 0 })
		const name = "a quarter of MEMORY_LIMIT for one identity"
		eventually(t, "the log tells", func() bool { return len(h.linesWith("limit", name)) > 0 })
		line := h.linesWith("limit", name)[0]
		if line["level"] != "warn" || line["value"] != float64(most/4) || line["client"] != "greedy" || line["held"] == nil {
			t.Errorf("logged %v", line)
		}
		if l := h.limitOf("memory_limit_per_identity"); l.Reached < h.closedFor(closeMemory) || l.Value != most/4 {
			t.Errorf("%+v", l)
		}
		if l := h.limitOf("memory_limit"); l.Value != most || l.Used < h.limitOf("memory_limit_per_identity").Used || l.Used == 0 {
			t.Errorf("%+v", l)
		}
	})
}

// Each limit has a name of its own, and what is not limited has no value.
func TestLimitsWithoutAValue(t *testing.T) {
	t.Parallel()
	h := start(t, "127.0.0.1:1", nil)
	seen := map[string]bool{}
	for _, l := range h.Limits() {
		if l.Of == "" || l.Name == "" || seen[l.Of] {
			t.Errorf("%+v", l)
		}
		seen[l.Of] = true
	}
	for _, of := range []string{"max_connections_per_identity", "memory_limit", "memory_limit_per_identity", "backend_max_connections", "backend_max_clients"} {
		if l := h.limitOf(of); l.Value != 0 {
			t.Errorf("%+v", l)
		}
	}
}
