package proxy

import (
	"strings"
	"sync/atomic"
	"testing"

	"dragontls/proxy/proxytest"
)

// HELLO without arguments keeps the protocol on Redis, and goes back to RESP2 on Dragonfly. The session speaks what its
// backend does, whatever connection its commands go over.
func TestHelloWithoutArgumentsLeavesTheProtocolToTheBackend(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, release := range []proxytest.Release{proxytest.V1_40, proxytest.August2026} {
			backToRESP2(t, m, dragonfly(t, proxytest.Options{Release: release}).Addr(), "*14\r\n", "$-1\r\n*0\r\n")
		}
		backToRESP2(t, m, redisServer(t), "%7\r\n", "_\r\n%0\r\n")
	})
}

func backToRESP2(t *testing.T, m mode, addr, greeting, nothing string) {
	t.Helper()
	h := m.start(t, addr, nil)
	w := h.dial()
	w.greetedBy("%7\r\n", "HELLO", "3")
	w.send(cmd("GET", "no") + cmd("HGETALL", "no"))
	w.want("_\r\n%0\r\n")
	w.greetedBy(greeting, "HELLO")
	for range 2 {
		w.send(cmd("GET", "no") + cmd("HGETALL", "no"))
		w.want(nothing)
		h.pass(stayInterval) // in mode shared, the next ones go over lanes
	}
	s := h.sessionOf(w)
	if m.shared {
		if s.keepsOwn() {
			t.Error("it keeps its own connection")
		}
		h.closeUnused(s)
		w.send(cmd("INFO", "nosuchsection") + cmd("GET", "no")) // over a new connection of its own
		for !strings.HasPrefix(w.line(), nothing[:1]) {
			continue
		}
	}
}

// greetedBy sends a HELLO and reads its reply, which begins with the line first.
func (w *wire) greetedBy(first string, args ...string) {
	w.t.Helper()
	w.send(cmd(args...) + cmd("ECHO", "greeted"))
	if got := w.line(); got != first {
		w.t.Fatalf("%q is answered %q, want %q", args, got, first)
	}
	for w.line() != "$7\r\n" || w.line() != "greeted\r\n" {
		continue
	}
}

// The reply says which protocol HELLO chose, and not the arguments, however the backend cuts it.
func TestProtocolIsThatOfTheReplyToHello(t *testing.T) {
	t.Parallel()
	const (
		two    = "*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:2\r\n"
		three  = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"
		simple = "%1\r\n+proto\r\n:3\r\n"
	)
	for name, tt := range map[string]struct {
		args        []string
		reply       string
		resp3, pins bool
	}{
		"RESP3":                          {args: []string{"HELLO", "3"}, reply: three, resp3: true},
		"RESP2":                          {args: []string{"HELLO", "2"}, reply: two},
		"RESP2 instead of RESP3":         {args: []string{"HELLO", "3"}, reply: two},
		"RESP3 instead of RESP2":         {args: []string{"HELLO", "2"}, reply: three, resp3: true},
		"RESP3 without arguments":        {args: []string{"HELLO"}, reply: three, resp3: true},
		"RESP2 without arguments":        {args: []string{"HELLO"}, reply: two},
		"a simple string":                {args: []string{"HELLO", "3"}, reply: simple, resp3: true},
		"no protocol":                    {args: []string{"HELLO", "3"}, reply: "%1\r\n+server\r\n+x\r\n", pins: true},
		"another protocol":               {args: []string{"HELLO", "3"}, reply: "%1\r\n+proto\r\n:33\r\n", pins: true},
		"not in the protocol that it is": {args: []string{"HELLO"}, reply: "*2\r\n+proto\r\n:3\r\n", pins: true},
		"no array":                       {args: []string{"HELLO", "3"}, reply: "+OK\r\n", pins: true},
		"far behind":                     {args: []string{"HELLO", "3"}, reply: "%2\r\n+x\r\n" + bulk(strings.Repeat("x", maxHeard)) + "+proto\r\n:3\r\n", pins: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, piece := range []int{1, 7, len(tt.reply)} {
				d := dragonfly(t, proxytest.Options{})
				h := mode{shared: true}.start(t, d.Addr(), nil)
				var asked atomic.Int32
				d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) {
					if string(args[0]) != "HELLO" || asked.Add(1) > 1 {
						return nil, false
					}
					for rest := tt.reply; rest != ""; {
						n := min(piece, len(rest))
						d.Send(conn, []byte(rest[:n]))
						h.takenIn()
						rest = rest[n:]
					}
					return nil, true
				})
				w := h.dial()
				w.do("$-1\r\n", "GET", "no")
				w.do(tt.reply, tt.args...)
				w.do(bulk("x"), "ECHO", "x")
				s := h.sessionOf(w)
				h.pass(0)
				s.pump.mu.Lock()
				resp3 := s.state.RESP3
				s.pump.mu.Unlock()
				if resp3 != tt.resp3 || s.keepsOwn() != tt.pins {
					t.Errorf("in pieces of %d: RESP3 %v, own for life %v", piece, resp3, s.keepsOwn())
				}
			}
		})
	}
}
