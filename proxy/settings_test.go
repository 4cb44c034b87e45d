package proxy

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// configOf is a configuration for Change that differs from that of a harness in what change says alone.
func (h *harness) configOf(change func(*Config)) Config {
	var c Config
	patient(&c)
	change(&c)
	return c
}

func (h *harness) change(change func(*Config)) {
	h.t.Helper()
	if err := h.Change(h.configOf(change)); err != nil {
		h.t.Fatal(err)
	}
}

// Commands that one read brings, and that DENY_COMMANDS names all or none of, are never judged by half of a list, and each reply
// belongs to its command, while the list changes all the time.
func TestDenyListChangesAsAWhole(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), nil)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				var deny []string
				if i%2 == 0 {
					deny = []string{"ECHO", "CLIENT|GETNAME"}
				}
				if err := h.Change(h.configOf(func(c *Config) { c.DenyCommands = deny })); err != nil {
					t.Error(err)
				}
			}
		}()
		w := h.dial()
		line := func() string {
			text, err := w.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(text, "$") && text != "$-1\r\n" {
				text, _ = w.r.ReadString('\n')
			}
			return text
		}
		const pairs = 6 // one read of a session's smallest buffer brings them all
		seen := map[bool]int{}
		for i := 0; i < 2000 || seen[true] == 0 || seen[false] == 0; i++ {
			w.send(strings.Repeat(cmd("ECHO", "word")+cmd("CLIENT", "GETNAME"), pairs) + cmd("PING"))
			denied := 0
			for range pairs {
				if echo := line(); strings.HasPrefix(echo, "-NOPERM") {
					denied++
				} else if echo != "word\r\n" {
					t.Fatalf("got %q for ECHO", echo)
				}
				if strings.HasPrefix(line(), "-NOPERM") {
					denied++
				}
			}
			if seen[denied > 0]++; denied != 0 && denied != 2*pairs {
				t.Fatalf("%d of %d commands are denied", denied, 2*pairs)
			}
			if last := line(); last != "+PONG\r\n" {
				t.Fatalf("got %q after them", last)
			}
		}
		close(stop)
		<-stopped
	})
}

// A Config that Change refuses changes nothing.
func TestChangeRefusesABadDenyList(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) { c.DenyCommands = []string{"ECHO"} })
		err := h.Change(h.configOf(func(c *Config) { c.DenyCommands, c.MaxConnections = []string{"A|"}, 1 }))
		if err == nil || !strings.Contains(err.Error(), "NAME|SUBCOMMAND") {
			t.Errorf("got %v", err)
		}
		w, other := h.dial(), h.dial()
		w.send(cmd("ECHO", "x"))
		if line, _ := w.r.ReadString('\n'); !strings.HasPrefix(line, "-NOPERM") {
			t.Errorf("got %q", line)
		}
		other.do("+PONG\r\n", "PING")
	})
}

// The scripts that a table has found harmless are known to the next one.
func TestHarmlessScriptsStayKnown(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), share)
	before := h.settings.Load().commands
	sum := strings.Repeat("0", 40)
	script, _, _ := before.Lookup([]byte("EVAL"))
	before.Classify(script, []byte("return 1"), []byte(cmd("EVAL", "return 1", "0")), 3)
	h.change(func(c *Config) { c.DenyCommands = []string{"KEYS", "NEVERHEARDOF"} })
	now := h.settings.Load().commands
	if !slices.Equal(now.Names, before.Names) {
		t.Error("the names have changed, by which commands are counted")
	}
	bySum, _, _ := now.Lookup([]byte("EVALSHA"))
	const known = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db" // of "return 1"
	if a, b := now.Classify(bySum, []byte(known), []byte(cmd("EVALSHA", known, "0")), 3), now.Classify(bySum, []byte(sum), []byte(cmd("EVALSHA", sum, "0")), 3); a == b {
		t.Errorf("a known script is of class %v, and so is an unknown one", a)
	}
}

// Sessions that wait for a place of their identity get those of a higher limit at once, and a lower limit hands on no place.
func TestHigherLimitOfAnIdentityServesThoseWhoWait(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		limit := func(n int) func(*Config) { return func(c *Config) { c.MaxPerIdentity = n } }
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
			limit(8)(c)
			c.Recheck, c.placeTimeout = (&judgement{}).recheck, time.Hour
		})
		var served []*wire
		for range 8 {
			w := h.dial()
			w.do("+PONG\r\n", "PING")
			served = append(served, w)
		}
		a, b := h.dial(), h.dial()
		eventually(t, "two wait", func() bool { return h.waiting() == 2 })
		h.change(limit(9))
		eventually(t, "one has a place", func() bool { return h.waiting() == 1 })
		h.change(limit(4))
		served[0].Close()
		eventually(t, "one is gone", func() bool { return h.live() == 9 })
		if n := h.waiting(); n != 1 {
			t.Fatalf("%d wait after a place above the limit was given back, want 1", n)
		}
		for _, w := range served[1:] {
			w.do("+PONG\r\n", "PING")
		}
		h.change(limit(0))
		a.do("+PONG\r\n", "PING")
		b.do("+PONG\r\n", "PING")
	})
}

func TestHigherLimitOfBackendConnectionsServesDialsInTurn(t *testing.T) {
	t.Parallel()
	m := mode{name: "paired"}
	h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) { c.Backend.MaxConnections = 1 })
	h.dial().do("+PONG\r\n", "PING")
	var late []*wire
	for i := range 3 {
		late = append(late, h.dial())
		late[i].send(cmd("PING"))
		eventually(t, "it waits for a place", func() bool { return h.limits[limitBackend].Count() == uint64(i+1) })
	}
	h.change(func(c *Config) { c.Backend.MaxConnections = 3 })
	late[0].want("+PONG\r\n")
	late[1].want("+PONG\r\n")
	if n := h.Stats().BackendConnections; n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	h.change(func(c *Config) { c.Backend.MaxConnections = 0 })
	late[2].want("+PONG\r\n")
	if h.backend.IsFull() {
		t.Error("full, without a limit")
	}
}

func TestPlacesForHandshakesMayBecomeFewerAndMore(t *testing.T) {
	t.Parallel()
	p := newPlaces(20, 2)
	for i := range 20 {
		p.placed(t, i%4, stageHello)
	}
	p.setMax(8)
	if n := len(p.crowded); n != 4 || p.len() != 20 {
		t.Fatalf("%d origins are above their share of 2, want 4; %d places are taken, want 20", n, p.len())
	}
	if h, loser := p.placed(t, 9, stageHello); h == nil || loser == nil {
		t.Error("a newcomer has replaced nobody")
	}
	p.setMax(21)
	p.consistent(t)
	if h, loser := p.placed(t, 9, stageHello); h == nil || loser != nil {
		t.Error("a free place was not given")
	}
	p.consistent(t)
}

// Those that wait at the door enter when there are more places.
func TestMorePlacesOpenTheDoor(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.MaxHandshakes, c.HandshakeTimeout, c.doorTimeout = 1, time.Hour, time.Hour })
		dialPlain(t, h.addr)
		eventually(t, "it has the place", func() bool { return h.pending.len() == 1 })
		io.WriteString(dialPlain(t, h.addr), "\x16")
		eventually(t, "another one waits at the door", func() bool { return h.pending.newcomersWaited() == 1 })
		h.change(func(c *Config) { c.MaxHandshakes, c.HandshakeTimeout = 2, time.Hour })
		eventually(t, "it has entered", func() bool { return h.pending.len() == 2 })
	})
}
