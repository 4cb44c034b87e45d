package proxy

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// Dragonfly ends a blocked command at a FIN. Over TLS, a close_notify alone would leave the command alive, and an element that is
// pushed then would be popped for nobody.
func TestClientThatLeavesItsBlockedCommandLosesNoElementOverTLS(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(w *wire){
		"close_notify":       func(w *wire) { _ = w.Conn.(*tls.Conn).CloseWrite() },
		"end of its socket":  func(w *wire) { _ = w.Close() },
		"more commands":      func(w *wire) { w.send(cmd("GET", "a") + cmd("SUBSCRIBE", "c")); _ = w.Close() },
		"a QUIT that waits":  func(w *wire) { w.send(cmd("QUIT")); _ = w.Close() },
		"a RESET that waits": func(w *wire) { w.send(cmd("RESET")); _ = w.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				d := dragonflyAt(t, proxytest.Options{TLS: testPKI().serverConfig()})
				h := m.start(t, d.Addr(), func(c *Config) {
					c.Backend.TLS = testPKI().clientConfig
					c.lingerTimeout, c.eofTimeout = time.Hour, time.Hour // nothing else ends the command
				})
				w := h.dial()
				w.do("+PONG\r\n", "PING")
				w.send(cmd("BLPOP", "q", "0"))
				eventually(t, "it blocks", func() bool { return d.Blocked() == 1 })
				leave(w)
				eventually(t, "the backend has ended the command", func() bool { return d.Blocked() == 0 })
				other := h.dial()
				other.do(":1\r\n", "LPUSH", "q", "element")
				other.do("$7\r\nelement\r\n", "LPOP", "q")
				eventually(t, "its session ends", func() bool { return h.Stats().Sessions == 1 })
			})
		})
	}
}

// inTimeWait returns the local ports of connections to an address that this side has closed first.
func inTimeWait(t *testing.T, address string) map[string]bool {
	t.Helper()
	const timeWait = "06"
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Skip(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	remote := fmt.Sprintf("0100007F:%04X", n)
	all := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == remote && f[3] == timeWait {
			all[f[1]] = true
		}
	}
	return all
}

// Whoever closes a connection first keeps its port for a minute. Sessions that come and go would soon leave none to dial from.
func TestShortSessionsLeaveNoPortInTimeWait(t *testing.T) {
	t.Parallel()
	const sessions = 30
	for name, conf := range map[string]*tls.Config{"in clear": nil, "over TLS": testPKI().serverConfig()} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				d := dragonflyAt(t, proxytest.Options{TLS: conf})
				before := inTimeWait(t, d.Addr()) // of another listener that had the port
				h := m.start(t, d.Addr(), func(c *Config) {
					if conf != nil {
						c.Backend.TLS = testPKI().clientConfig
					}
				})
				for range sessions {
					w := h.dial()
					w.do("+OK\r\n", "SELECT", "0") // over an own connection
					w.Close()
				}
				eventually(t, "all are gone", func() bool { return h.Stats().Sessions == 0 && h.ownConnections() == 0 })
				left := inTimeWait(t, d.Addr())
				for port := range before {
					delete(left, port)
				}
				if len(left) > 0 {
					t.Errorf("%d of %d ports are in TIME_WAIT", len(left), sessions)
				}
			})
		})
	}
}

// The goodbye to the backend is nobody's business but the connection's: neither the end of the session nor that of the proxy waits
// for a backend that does not take it.
func TestNobodyWaitsForAGoodbyeThatTheBackendDoesNotTake(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]time.Duration{"the session": time.Hour, "the connection": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				d := dragonflyAt(t, proxytest.Options{OnCommand: func(_ int, args [][]byte) ([]byte, bool) {
					return nil, string(args[0]) == "QUIT"
				}})
				h := m.start(t, d.Addr(), func(c *Config) { c.partTimeout = limit })
				w := h.dial()
				w.do("+OK\r\n", "SELECT", "0")
				_ = w.Conn.(*tls.Conn).CloseWrite()
				w.wantEnd()
				eventually(t, "the session is gone", func() bool { return h.Stats().Sessions == 0 })
				if limit < time.Hour {
					eventually(t, "the connection is gone", func() bool { return h.ownConnections() == 0 })
					return
				}
				eventually(t, "the backend was asked", func() bool {
					return slices.ContainsFunc(d.Commands(), func(c proxytest.Command) bool { return c.String() == "QUIT" })
				})
				if n := h.ownConnections(); n != 1 {
					t.Errorf("%d own connections, want one that waits", n)
				}
			})
		})
	}
}

// The goodbye never gets into the middle of what a client has left behind.
func TestNoGoodbyeWhereSomethingIsHalfSent(t *testing.T) {
	t.Parallel()
	for name, left := range map[string]string{
		"half a value":       "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n" + strings.Repeat("v", 100000),
		"a blocked command":  cmd("BLPOP", "q", "0"),
		"a subscription":     cmd("SUBSCRIBE", "c"),
		"replies turned off": cmd("CLIENT", "REPLY", "OFF"),
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				d := dragonflyAt(t, proxytest.Options{RawLimit: 1 << 20})
				h := m.start(t, d.Addr(), func(c *Config) { c.lingerTimeout = time.Millisecond })
				w := h.dial()
				w.do("+OK\r\n", "SELECT", "1")
				w.send(left)
				mark := left[len(left)-10:]
				var id int
				eventually(t, "the backend has it", func() bool {
					for _, n := range d.ConnIDs() {
						if strings.HasSuffix(string(d.RawBytes(n)), mark) {
							id = n
						}
					}
					return id != 0
				})
				w.Close()
				eventually(t, "it is gone", func() bool {
					return h.Stats().Sessions == 0 && h.ownConnections() == 0 && !slices.Contains(d.ConnIDs(), id)
				})
				if all := string(d.RawBytes(id)); !strings.HasSuffix(all, mark) {
					t.Errorf("after it came %q", all[strings.LastIndex(all, mark)+len(mark):])
				}
			})
		})
	}
}
