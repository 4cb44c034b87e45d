package proxy

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/rs/zerolog"

	"dragontls/proxy/command"
	"dragontls/proxy/proxytest"
)

type auditLine map[string]any

// auditLines are those of one kind, as they were written.
func auditLines(t *testing.T, b *syncBuffer, kind string) (lines []auditLine) {
	t.Helper()
	for text := range strings.Lines(b.String()) {
		l := auditLine{}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if l["audit"] == kind {
			lines = append(lines, l)
		}
	}
	return lines
}

func (l auditLine) want(t *testing.T, want auditLine) {
	t.Helper()
	for k, v := range want {
		if l[k] != v {
			t.Errorf("%s: got %v, want %v", k, l[k], v)
		}
	}
}

func audited(level AuditLevel, to *syncBuffer) func(*Config) {
	return func(c *Config) { c.Audit = Audit{Level: level, Log: zerolog.New(to).Level(zerolog.InfoLevel)} }
}

func TestAuditTellsWhoCameAndWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var out syncBuffer
		j := mapping("web")
		rules := newRules(t, command.RuleOptions{Deny: []string{"KEYS"}})
		j.change("web", func(u *User) { u.Rules = rules })
		h := m.start(t, dragonflyWithUsers(t, "web").Addr(), func(c *Config) { mappedTo(j)(c); audited(AuditConnections, &out)(c) })
		w := h.dialAs("web")
		sent := cmd("SET", "secret-key", "secret-value") + cmd("GET", "secret-key") + cmd("KEYS", "secret-*")
		got := "+OK\r\n$12\r\nsecret-value\r\n" + forbidden("the command KEYS")
		w.send(sent)
		w.want(got)
		w.send(cmd("QUIT"))
		w.want("+OK\r\n")
		eventually(t, "its end is written", func() bool { return len(auditLines(t, &out, "ended")) == 1 })
		begin, end := auditLines(t, &out, "accepted"), auditLines(t, &out, "ended")
		if len(begin) != 1 || len(end) != 1 || len(auditLines(t, &out, "command")) != 0 {
			t.Fatalf("wrote %s", &out)
		}
		who := auditLine{"client": "web", "user": "web", "remote": w.LocalAddr().String(), "tls_version": "1.3", "resumed": false}
		begin[0].want(t, who)
		end[0].want(t, who)
		end[0].want(t, auditLine{
			"reason": "quit", "commands": 4.0, "bytes_in": float64(len(sent + cmd("QUIT"))), "bytes_out": float64(len(got + "+OK\r\n")),
		})
		if id, _ := begin[0]["identity"].(string); len(id) != 64 || begin[0]["serial"] == "" || end[0]["identity"] != id {
			t.Errorf("identity %q, serial %q", id, begin[0]["serial"])
		}
		if _, err := time.Parse(time.RFC3339, begin[0]["time"].(string)); err != nil || end[0]["duration_seconds"].(float64) <= 0 {
			t.Errorf("at %v, for %v", begin[0]["time"], end[0]["duration_seconds"])
		}
		if strings.Contains(out.String(), "secret") {
			t.Errorf("keys or values in %s", &out)
		}
	})
}

func TestAuditNamesCommands(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var out syncBuffer
		j := mapping("web")
		rules := newRules(t, command.RuleOptions{Deny: []string{"INCR"}})
		j.change("web", func(u *User) { u.Rules = rules })
		h := m.start(t, dragonflyWithUsers(t, "web").Addr(), func(c *Config) { mappedTo(j)(c); audited(AuditCommands, &out)(c) })
		w := h.dialAs("web")
		w.send(cmd("get", "secret-key") + "SET secret-key 1\r\n" + cmd("INCR", "secret-key") + cmd("secret-command") + cmd("APPEND", "secret-key", strings.Repeat("x", 100<<10)))
		w.want("$-1\r\n+OK\r\n" + forbidden("the command INCR") + "-ERR unknown command `SECRET-COMMAND`\r\n:102401\r\n")
		w.do("+RESET\r\n", "RESET")
		w.Close()
		eventually(t, "its end is written", func() bool { return len(auditLines(t, &out, "ended")) == 1 })
		var got []string
		for _, l := range auditLines(t, &out, "command") {
			l.want(t, auditLine{"client": "web", "user": "web", "refused": l["command"] == "INCR"})
			got = append(got, l["command"].(string))
		}
		if want := "GET SET INCR other APPEND RESET"; strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if strings.Contains(strings.ToLower(out.String()), "secret") {
			t.Errorf("keys, values or a client's own words in %s", &out)
		}
	})
}

func TestAuditOfSessionsThatWereNotLetIn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var out syncBuffer
		j := mapping("web")
		h := m.start(t, dragonflyWithUsers(t, "web").Addr(), func(c *Config) {
			mappedTo(j)(c)
			audited(AuditConnections, &out)(c)
			c.MaxPerIdentity, c.placeTimeout = 1, 20*time.Millisecond // its place does not become free
		})
		w := h.dialAs("web")
		w.actsAs("web")
		h.dialAs("web").wantEnd()
		h.dialAs("stranger").wantEnd()
		eventually(t, "their ends are written", func() bool { return len(auditLines(t, &out, "ended")) == 2 })
		ends := auditLines(t, &out, "ended")
		if ends[0]["reason"] == "unmapped" {
			slices.Reverse(ends) // both were at their ends at once
		}
		ends[0].want(t, auditLine{"reason": "max_connections_identity", "client": "web"})
		ends[1].want(t, auditLine{"reason": "unmapped", "client": nil})
		if n := len(auditLines(t, &out, "accepted")); n != 1 {
			t.Errorf("%d were accepted", n)
		}
	})
}

// stuck is a log whose reader sleeps.
type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.release
	return len(p), nil
}

func TestAuditThatIsStuckDropsAndCounts(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		out := stuck{make(chan struct{})}
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.Audit = Audit{Level: AuditCommands, Log: zerolog.New(out), Queue: 10}
		})
		w := h.dial()
		const n = 1000
		w.send(strings.Repeat(cmd("PING"), n))
		w.want(strings.Repeat("+PONG\r\n", n))
		// One is being written, ten wait; that the session was accepted is one of them.
		if got := h.Stats().AuditDropped; got != n+1-11 && got != n+1-10 {
			t.Errorf("dropped %d", got)
		}
		h.Close() // returns although nothing can be written
		close(out.release)
		<-h.audit.queue.Stopped()
	})
}

func TestAuditTellsOfItsGaps(t *testing.T) {
	var out syncBuffer
	release := make(chan struct{})
	a := newAuditor(Audit{Level: AuditConnections, Log: zerolog.New(writers{stuck{release}, &out}), Queue: 2}, time.Now())
	a.start()
	event := auditEvent{kind: "command", command: "GET", remote: dummyAddr{}}
	for range 100 {
		a.put(event)
	}
	dropped := a.droppedSoFar()
	close(release)
	a.close()
	lines := auditLines(t, &out, "command")
	gaps := auditLines(t, &out, "dropped")
	told := 0.0
	for _, g := range gaps {
		told += g["events"].(float64)
	}
	if dropped == 0 || told != float64(dropped) || len(lines)+int(dropped) != 100 {
		t.Errorf("dropped %d, told of %v, wrote %d", dropped, told, len(lines))
	}
}

type dummyAddr struct{}

func (dummyAddr) Network() string { return "tcp" }
func (dummyAddr) String() string  { return "192.0.2.1:1" }

// writers writes to each in turn.
type writers []interface{ Write([]byte) (int, error) }

func (w writers) Write(p []byte) (n int, err error) {
	for _, one := range w {
		if n, err = one.Write(p); err != nil {
			break
		}
	}
	return n, err
}

// What waits is written before Close returns.
func TestCloseFlushesTheAuditLog(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var out syncBuffer
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), audited(AuditCommands, &out))
		w := h.dial()
		w.send(strings.Repeat(cmd("PING"), 1000))
		w.want(strings.Repeat("+PONG\r\n", 1000))
		h.Close()
		if n, d := len(auditLines(t, &out, "command")), h.Stats().AuditDropped; n+int(d) != 1000 {
			t.Errorf("%d lines, %d dropped", n, d)
		}
		ends := auditLines(t, &out, "ended")
		if len(ends) != 1 || ends[0]["reason"] != "shutdown" || ends[0]["commands"] != 1000.0 {
			t.Errorf("ends: %v", ends)
		}
	})
}

func TestAuditAllocatesNothingWhereTrafficPasses(t *testing.T) {
	a := newAuditor(Audit{Level: AuditCommands, Log: zerolog.Nop(), Queue: 10}, time.Now())
	event := auditEvent{kind: "command", command: "GET", remote: dummyAddr{}}
	if n := testing.AllocsPerRun(100, func() { a.put(event) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// An idle session is this struct, its sockets and its goroutines. Go hands out 2,048 or 2,304 bytes for it: what fits
// costs nothing.
func TestSessionFitsItsSizeClass(t *testing.T) {
	if n := unsafe.Sizeof(session{}); n > 2304 {
		t.Errorf("a session takes %d bytes", n)
	}
	if n := unsafe.Sizeof(Peer{}); n > 144 {
		t.Errorf("a peer takes %d bytes", n)
	}
}
