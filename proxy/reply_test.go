package proxy

import (
	"crypto/tls"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dragontls/proxy/proxytest"
)

func (w *wire) hello(proto string) {
	w.t.Helper()
	w.send(cmd("HELLO", proto) + cmd("ECHO", "greeted"))
	for w.line() != "greeted\r\n" {
	}
}

func TestInvalidationsArriveBetweenReplies(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
		w, other := h.dial(), h.dial()
		w.hello("3")
		const invalidated = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
		w.do("+OK\r\n", "CLIENT", "TRACKING", "ON")
		for range 100 {
			w.do("+OK\r\n", "SET", "x", "1")
			w.send(cmd("GET", "k"))
			if l := w.line(); l == "$1\r\n" {
				w.want("v\r\n")
			}
			other.do("+OK\r\n", "SET", "k", "v")
			w.want(invalidated)
			w.send(cmd("SHUTDOWN") + cmd("ECHO", "a"))
			w.want(denied("SHUTDOWN") + "$1\r\na\r\n")
		}
		w.send(cmd("GET", "k") + cmd("SET", "k", "v") + cmd("SHUTDOWN"))
		w.want("$1\r\nv\r\n+OK\r\n" + invalidated + denied("SHUTDOWN"))
	})
}

// Where replies are not counted a refusal comes between two frames, and is the last word.
func TestRefusalWhileSubscribedComesBetweenFrames(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, proto := range []string{"2", "3"} {
			d := dragonfly(t, proxytest.Options{})
			h := m.start(t, d.Addr(), func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
			w, other := h.dial(), h.dial()
			w.hello(proto)
			first := map[string]string{"2": "*", "3": ">"}[proto]
			w.do(first+"3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", "SUBSCRIBE", "c")
			payload := strings.Repeat("m", 100<<10)
			message := first + "3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$" + strconv.Itoa(len(payload)) + "\r\n" + payload + "\r\n"
			const n = 30
			other.send(strings.Repeat(cmd("PUBLISH", "c", payload), n))
			w.want(message)
			w.send(cmd("SHUTDOWN") + cmd("SET", "behind", "1"))
			got := w.wantEnd()
			rest, found := strings.CutSuffix(got, denied("SHUTDOWN"))
			for found && strings.HasPrefix(rest, message) {
				rest = rest[len(message):]
			}
			if !found || rest != "" {
				t.Errorf("RESP%s: ends with %.100q, out of place %.100q", proto, got[max(0, len(got)-100):], rest)
			}
			if _, ok := d.String(0, "behind"); ok {
				t.Error("a command behind the refusal ran")
			}
		}
	})
}

func TestRepliesOffAndSkipped(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		w := m.start(t, redisServer(t), nil).dial()
		w.send(cmd("CLIENT", "REPLY", "OFF") + cmd("SET", "k", "v") + cmd("GET", "k") + cmd("CLIENT", "REPLY", "ON"))
		w.want("+OK\r\n")
		w.send(cmd("CLIENT", "REPLY", "SKIP") + cmd("GET", "k") + cmd("ECHO", "a"))
		w.want("$1\r\na\r\n")
		w.do("+RESET\r\n", "RESET")
		w.send(cmd("CLIENT", "REPLY", "OFF") + cmd("GET", "k") + cmd("RESET") + cmd("GET", "k"))
		w.want("+RESET\r\n$1\r\nv\r\n")
	})
}

func TestMonitorShowsAndEnds(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w, other := h.dial(), h.dial()
		w.do("+OK\r\n", "MONITOR")
		for range 50 {
			other.do("$1\r\na\r\n", "ECHO", "a")
			for l := w.line(); !strings.HasSuffix(l, "\"ECHO\" \"a\"\r\n"); l = w.line() {
				m.wantOfTheProxy(t, monitored(l))
			}
		}
		w.send(cmd("RESET") + cmd("ECHO", "counted"))
		for l := w.line(); l != "+RESET\r\n"; l = w.line() {
			m.wantOfTheProxy(t, monitored(l))
		}
		w.want("$7\r\ncounted\r\n")
	})
}

// monitored is the words of the command that a line of MONITOR tells of.
func monitored(line string) []string {
	_, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\"\r\n"), "] \"")
	return strings.Split(quoted, "\" \"")
}

func TestReplyInFrontOfABlockedCommandArrivesAtOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{})
		h := m.start(t, d.Addr(), nil)
		w, other := h.dial(), h.dial()
		w.send(cmd("PING") + cmd("BLPOP", "l", "0") + cmd("ECHO", "behind"))
		// Nothing is pushed before this has arrived.
		w.want("+PONG\r\n")
		eventually(t, "BLPOP blocks", func() bool { return d.Blocked() == 1 })
		other.do(":1\r\n", "LPUSH", "l", "v")
		w.want("*2\r\n$1\r\nl\r\n$1\r\nv\r\n$6\r\nbehind\r\n")
	})
}

func TestDeepPipeline(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		w := m.start(t, redisServer(t), nil).dial()
		const n = 100_000
		sent := make(chan error, 1)
		go func() { // ends when all is sent
			_, err := w.Write([]byte(strings.Repeat(cmd("INCR", "n"), n)))
			sent <- err
		}()
		for i := range n {
			if want := ":" + strconv.Itoa(i+1) + "\r\n"; w.line() != want {
				t.Fatalf("reply %d is not %q", i, want)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}

// A client that goes away while it blocks costs no element and leaves no connection.
func TestBlockedClientThatGoesAwayLosesNothing(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, end := range []string{"FIN", "RST"} {
			for _, behind := range []string{"", cmd("ECHO", "x"), cmd("RESET"), cmd("QUIT"), "*x\r\n"} {
				t.Run(end+" "+behind, func(t *testing.T) {
					d := dragonfly(t, proxytest.Options{})
					blocking := make(chan int, 1)
					d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) {
						if string(args[0]) == "BLPOP" {
							blocking <- conn
						}
						return nil, false
					})
					h := m.start(t, d.Addr(), nil)
					other := h.dial()
					other.do("+PONG\r\n", "PING")
					others := h.ownConnections()
					w := h.dial()
					w.send(cmd("PING") + cmd("BLPOP", "l", "0") + behind)
					w.want("+PONG\r\n")
					eventually(t, "BLPOP blocks", func() bool { return d.Blocked() == 1 })
					raw := w.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
					if end == "RST" {
						raw.SetLinger(0)
					}
					raw.Close()
					eventually(t, "nobody waits any more", func() bool { return d.Blocked() == 0 })
					conn := <-blocking
					eventually(t, "its connection is gone", func() bool { return !slices.Contains(d.ConnIDs(), conn) })
					eventually(t, "it has no other", func() bool { return h.ownConnections() <= others })
					other.do(":1\r\n", "LPUSH", "l", "v")
					other.do(":1\r\n", "LLEN", "l")
				})
			}
		}
	})
}

func TestHalfCloseBehindBigAndSmallRepliesLosesNone(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		w := m.start(t, redisServer(t), nil).dial()
		big := strings.Repeat("b", 3<<20)
		w.do("+OK\r\n", "SET", "k", big)
		w.send(strings.Repeat(cmd("GET", "k")+cmd("PING"), 5) + "*2\r\n$3\r\nGET")
		w.Conn.(*tls.Conn).CloseWrite()
		want := strings.Repeat("$3145728\r\n"+big+"\r\n+PONG\r\n", 5)
		if got := w.wantEnd(); got != want {
			t.Errorf("got %d bytes, want %d", len(got), len(want))
		}
	})
}

// The client ends in the middle of a big command: what it sent before is answered all the same.
func TestHalfCloseInABigCommandLosesNoReplyBefore(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{KeepRepliesOnHalfClose: true})
		goOn := make(chan struct{})
		d.SetOnCommand(func(_ int, args [][]byte) ([]byte, bool) {
			if string(args[0]) == "ECHO" {
				select {
				case <-goOn:
				case <-d.Done():
				}
			}
			return nil, false
		})
		h := m.start(t, d.Addr(), nil)
		w := h.dial()
		w.send(cmd("ECHO", "a") + cmd("PING") + "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n" + strings.Repeat("x", 200_000))
		w.Conn.(*tls.Conn).CloseWrite()
		// From here on the session does whatever it does about the end of its client: ending itself would come before the replies.
		eventually(t, "the session has seen the end", func() (seen bool) {
			h.each(func(s *session) { seen = s.pump.limit.Load() != 0 })
			return seen
		})
		close(goOn)
		if got := w.wantEnd(); got != "$1\r\na\r\n+PONG\r\n" {
			t.Errorf("got %q", got)
		}
	})
}
