package proxy

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// What Dragonfly v1.40.1 was seen to answer comes through the proxy byte for byte. Blocks that say [direct] differ
// on purpose; TestDeliberateDifferences has what comes instead.
func TestRecordedAnswersPassUnchanged(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, tr := range proxytest.Transcripts() {
			switch tr.File {
			case "maxclients.txt":
				continue // the backend's limit counts the prober's connection too
			}
			t.Run(tr.File, func(t *testing.T) {
				playThrough(t, m, dragonfly(t, tr.Options).Addr(), tr.File, false)
			})
		}
	})
}

func TestRecordedAnswersOfARealDragonflyPassUnchanged(t *testing.T) {
	t.Parallel()
	addr := os.Getenv("DRAGONFLY_ADDR")
	if addr == "" {
		t.Skip("DRAGONFLY_ADDR is not set")
	}
	eachModeAlone(t, func(t *testing.T, m mode) {
		for _, tr := range proxytest.Transcripts() {
			if tr.Options.RequirePass == "" && tr.Options.MaxClients == 0 && tr.Options.Release == proxytest.V1_40 {
				t.Run(tr.File, func(t *testing.T) { playThrough(t, m, addr, tr.File, true) })
			}
		}
	})
}

func dragonfly(t testing.TB, opt proxytest.Options) *proxytest.Dragonfly {
	t.Helper()
	d, err := proxytest.NewDragonfly(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func playThrough(t *testing.T, m mode, backend, file string, isReal bool) {
	h := m.start(t, backend, nil)
	p := proxytest.Player{
		Dial:    func() (net.Conn, error) { return tls.Dial("tcp", h.addr, testPKI().clientConfig()) },
		Proxied: true, Real: isReal,
	}
	p.Play(t, withoutSplitErrors(t, file))
}

// withoutSplitErrors leaves out commands whose error quotes a CR LF of theirs: to whom matches replies by order that
// is a reply too many, and it ends the session (TestDeliberateDifferences). ACL and AUTH with CR LF are refused.
func withoutSplitErrors(t *testing.T, file string) string {
	if file != "echo.txt" && file != "unknown.txt" {
		return file
	}
	b, err := os.ReadFile(filepath.Join("proxytest", "testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(b)) {
		last := len(kept) - 1
		if strings.HasPrefix(line, "< ") && (strings.HasPrefix(line, "< -") && strings.Count(line, `\r\n`) > 1 ||
			strings.Contains(kept[last], `\r\n`) && (strings.HasPrefix(kept[last], "> ACL") || strings.HasPrefix(kept[last], "> AUTH"))) {
			kept = kept[:last]
			continue
		}
		kept = append(kept, line)
	}
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, []byte(strings.Join(kept, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeliberateDifferences(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const protocolError = "-ERR Protocol error: -ERR Protocol error: "
		for _, c := range []struct {
			name, send, want string
			deny             []string
			ends             bool
		}{
			{name: "an error that quotes CR LF ends the session", send: cmd("A\r\n+INJ"),
				want: "-ERR unknown command `A\r\n", ends: true},
			{name: "replies in front of QUIT are not lost", send: cmd("ECHO", "1") + cmd("ECHO", "2") + cmd("QUIT") + cmd("PING"),
				want: "$1\r\n1\r\n$1\r\n2\r\n+OK\r\n", ends: true},
			{name: "replies in front of a protocol error are not lost", send: cmd("ECHO", "1") + "*x\r\n" + cmd("PING"),
				want: "$1\r\n1\r\n" + protocolError + "invalid multibulk length\r\n", ends: true},
			{name: "HTTP is refused", send: "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
				want: "-ERR dragontls: this is not an HTTP server\r\n", ends: true},
			{name: "empty lines are dropped", send: "\r\n" + cmd("ECHO", "1") + "\n \t\r\n\x00\r\n" + cmd("ECHO", "2"),
				want: "$1\r\n1\r\n$1\r\n2\r\n"},
			{name: "denied", send: cmd("replconf", "ACK", "1") + cmd("DFLY", "LOAD", "x") + cmd("ACL SETUSER", "u") + cmd("ACL", "SetUser", "u") + cmd("PING"),
				deny: []string{"REPLCONF", "DFLY", "ACL|SETUSER"},
				want: denied("REPLCONF") + denied("DFLY") + denied("ACL SETUSER") + denied("ACL SETUSER") + "+PONG\r\n"},
			{name: "a denied name judged by its first word", send: cmd("acl whoami") + cmd("ACL", "WHOAMI") + cmd("ACL  x") + "acl whoami\r\n",
				deny: []string{"ACL"}, want: strings.Repeat(denied("ACL"), 4)},
		} {
			t.Run(c.name, func(t *testing.T) {
				d := dragonfly(t, proxytest.Options{LoseRepliesOnProtocolError: true})
				h := m.start(t, d.Addr(), func(p *Config) { p.DenyCommands = c.deny })
				w := h.dial()
				w.send(c.send)
				w.want(c.want)
				if c.ends {
					if rest := w.wantEnd(); rest != "" {
						t.Errorf("then %q", rest)
					}
					return
				}
				w.do("+PONG\r\n", "PING")
			})
		}
	})
}

func denied(name string) string {
	return "-NOPERM dragontls: the command " + name + " is refused here (DENY_COMMANDS)\r\n"
}

func TestQuotesInInlineCommandsAreRefused(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), nil)
		w := h.dial()
		for _, line := range []string{`SET k "a b"`, `SET k 'a b'`, `SET k "a\x41"`, `SET k "unbalanced`} {
			w.send(line + "\r\n" + cmd("GET", "k"))
			if got := w.line(); !strings.HasPrefix(got, "-ERR ") {
				t.Errorf("%s: %q", line, got)
			}
			w.want("$-1\r\n")
		}
	})
}

func (w *wire) line() string {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	s, err := w.r.ReadString('\n')
	if err != nil {
		w.t.Fatalf("got %q, then %v", s, err)
	}
	return s
}

// Dragonfly runs the contents of bulks behind an empty line: what one sends as a value must stay one.
func TestEmptyLineDoesNotSmuggle(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) { c.DenyCommands = []string{"FLUSHALL"} })
		w := h.dial()
		w.do("+OK\r\n", "SET", "victim", "v")
		for _, empty := range []string{"\r\n", "\n", "  \r\n", "\x00\r\n", "\t\n", "\r\n\r\n"} {
			for _, payload := range []string{"\r\nDEL victim\r\n", "\r\nFLUSHALL\r\n"} {
				w.send(empty + cmd("SET", "k", payload) + empty + cmd("GET", "victim"))
				w.want("+OK\r\n$1\r\nv\r\n")
				w.do(fmt.Sprintf("$%d\r\n%s\r\n", len(payload), payload), "GET", "k")
			}
		}
		for _, c := range d.Commands() {
			if name := strings.ToUpper(string(c.Args[0])); name != "SET" && name != "GET" {
				m.wantOfTheProxy(t, strings.Split(c.String(), " "))
			}
		}
	})
}

func TestHalfCloseBehindAPipelineLosesNoReply(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{HalfCloseWindow: 5 * time.Millisecond})
		h := m.start(t, d.Addr(), nil)
		w := h.dial()
		w.send(strings.Repeat(cmd("ECHO", "x"), 100))
		w.Conn.(*tls.Conn).CloseWrite()
		if got := w.wantEnd(); got != strings.Repeat("$1\r\nx\r\n", 100) {
			t.Errorf("got %d bytes: %q", len(got), got)
		}
	})
}
