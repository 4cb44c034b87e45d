package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/certs/pki"
	"dragontls/proxy/proxytest"
)

const sayUnavailable = "-LOADING dragontls: backend unavailable, the command was not sent\r\n"

func dragonflyAt(t testing.TB, o proxytest.Options) *proxytest.Dragonfly {
	t.Helper()
	d, err := proxytest.NewDragonfly(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// soonUnavailable makes a command wait only a moment for the backend. It is for a Server none of whose commands must be
// served: a backend that is merely slow would be given up too.
func soonUnavailable(c *Config) { c.unavailableTimeout = 50 * time.Millisecond }

// wantUnavailable wants a Server to count why the backend serves nobody, while a client's command waits for it, and one that
// does not wait for long to say so. It returns the first.
func (m mode) wantUnavailable(t *testing.T, backend, reason string, change func(*Config)) *harness {
	t.Helper()
	h := m.start(t, backend, change)
	h.dialAs("web").send(cmd("PING"))
	eventually(t, "counted as "+reason, func() bool { return h.Stats().BackendErrors[reason] > 0 })
	w := m.start(t, backend, func(c *Config) { change(c); soonUnavailable(c) }).dialAs("web")
	w.send(cmd("PING"))
	w.want(sayUnavailable)
	w.wantCleanEnd()
	return h
}

func (h *harness) wantReady(ready bool, reason string) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("ready %v, %q", ready, reason), func() bool {
		r := h.BackendReady()
		return r.OK == ready && strings.Contains(r.Detail, reason)
	})
}

func TestBackendThatIsDownAndComesUp(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr := reserve(t, "127.0.0.1")[0]
		h, hasty := m.start(t, addr, nil), m.start(t, addr, soonUnavailable)
		h.wantReady(false, "refused")
		idle := h.dial()
		w := hasty.dial()
		w.send(cmd("PING") + cmd("SET", "a", strings.Repeat("x", 5000)) + cmd("MULTI") + cmd("EXEC"))
		w.wantCleanEnd()
		hasty.wantClosed(closeUnavailable, 1)
		dragonflyAt(t, proxytest.Options{Listen: addr})
		h.wantReady(true, "")
		idle.do("+PONG\r\n", "PING")
	})
}

func TestBackendThatGoesAwayInAPipeline(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, scripted(t, func(args []string) string {
			switch {
			case args[0] != "ECHO":
				return "+PONG\r\n"
			case args[1] == "d":
				return ""
			}
			return "+" + args[1] + "\r\n"
		}), nil)
		w := h.dial()
		w.send(cmd("ECHO", "a") + cmd("ECHO", "b") + cmd("ECHO", "c") + cmd("ECHO", "d") + cmd("ECHO", "e"))
		w.want("+a\r\n+b\r\n+c\r\n")
		w.wantCleanEnd()
		eventually(t, "the session ends for the backend", func() bool {
			return h.closedFor(closeBackend)+h.closedFor(closeBackendError) == 1 // RST where it left bytes unread
		})
	})
}

const sayMalformed = "-ERR dragontls: the backend's reply is malformed or nested too deeply, so the session ends\r\n"

func TestBadRepliesEndTheSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, tt := range map[string]struct{ reply, want string }{
			"no type":           {"hello\r\n", sayMalformed},
			"length":            {"$99999999999999999999\r\n", sayMalformed},
			"negative length":   {"$-2\r\n", sayMalformed},
			"bulk's end":        {"$1\r\nabc\r\n", sayMalformed},
			"behind a good one": {"+OK\r\nhello\r\n", "+OK\r\n"},
			"one too many":      {"+OK\r\n+OK\r\n", "+OK\r\n"},
			"a last word":       {"+OK\r\n-ERR going away\r\n", "+OK\r\n-ERR going away\r\n"},
			"too deep":          {strings.Repeat("*1\r\n", 2000), sayMalformed},
			"endless line":      {"+" + strings.Repeat("x", 200000), sayMalformed},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				h := m.start(t, scripted(t, func(args []string) string {
					if args[0] == "GET" {
						return tt.reply
					}
					return "+PONG\r\n"
				}), nil)
				w := h.dial()
				w.send(cmd("GET", "k"))
				got := w.wantEnd()
				// What comes in more than one read is passed on as far as it is good.
				inParts := strings.HasPrefix(tt.reply, got) && len(got) < len(tt.reply) && len(tt.reply) > 1000
				if got != tt.want && !inParts {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				w.Close()
				h.wantClosed(closeBackendError, 1)
				h.dial().do("+PONG\r\n", "PING")
			})
		}
	})
}

func TestBackendWithoutPlaceForClients(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const full = "-ERR max number of clients reached\r\n"
		t.Run("clients authenticate themselves", func(t *testing.T) {
			h := m.start(t, fakeBackend(t, func(c net.Conn) {
				io.WriteString(c, full)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			}), nil)
			w := h.dial()
			if m.shared { // a session has no connection before it sends a command, and may outlive it
				w.do(full, "PING")
				return
			}
			w.want(full)
			w.wantCleanEnd()
		})
		t.Run("dragontls authenticates", func(t *testing.T) {
			h := m.start(t, fakeBackend(t, func(c net.Conn) {
				io.WriteString(c, full)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c)
			}), func(c *Config) { c.Backend.Credentials = credentials("app", "secret") })
			w := h.dial()
			w.do(full, "PING")
			w.wantCleanEnd()
			h.wantClosed(closeMaxClients, 1)
			h.wantReady(false, "maxclients")
			if errors := h.Stats().BackendErrors; errors["auth"] != 0 || errors["max_clients"] == 0 {
				t.Errorf("errors %v", errors)
			}
		})
	})
}

func credentials(user, password string) func() (string, string, error) {
	return func() (string, string, error) { return user, password, nil }
}

func TestBackendOverTLS(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		p := testPKI()
		other, err := pki.NewCA("another")
		if err != nil {
			t.Fatal(err)
		}
		foreign := x509.NewCertPool()
		foreign.AppendCertsFromPEM(other.PEM())
		d := dragonflyAt(t, proxytest.Options{TLS: p.serverConfig()})
		for _, tt := range []struct {
			name  string
			conf  *tls.Config
			fault string // empty: ready
		}{
			{"good", p.clientConfig(), ""},
			{"name from the address", &tls.Config{RootCAs: p.pool, Certificates: []tls.Certificate{p.client}}, ""},
			{"another CA", &tls.Config{RootCAs: foreign, Certificates: []tls.Certificate{p.client}}, "certificate"},
			{"another name", &tls.Config{RootCAs: p.pool, ServerName: "wrong.example", Certificates: []tls.Certificate{p.client}}, "certificate"},
			{"no client certificate", &tls.Config{RootCAs: p.pool, MaxVersion: tls.VersionTLS12}, "tls"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				secure := func(c *Config) { c.Backend.TLS = func() *tls.Config { return tt.conf } }
				if tt.fault == "" {
					h := m.start(t, d.Addr(), secure)
					w := h.dial()
					h.wantReady(true, "")
					big := strings.Repeat("x", 3<<20)
					w.do("+OK\r\n", "SET", t.Name(), big)
					w.do(fmt.Sprintf("$%d\r\n%s\r\n", len(big), big), "GET", t.Name())
					return
				}
				h := m.wantUnavailable(t, d.Addr(), tt.fault, secure)
				h.wantReady(false, "TLS with the backend")
				if e := h.Stats().BackendErrors; e["dial"] != 0 {
					t.Errorf("errors %v", e)
				}
			})
		}
	})
}

func TestBackendOnAUnixSocket(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		dir, err := os.MkdirTemp("", "d")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		path := filepath.Join(dir, "s")
		dragonflyAt(t, proxytest.Options{Listen: "unix:" + path})
		h := m.start(t, path, nil)
		h.wantReady(true, "")
		h.dial().do("+PONG\r\n", "PING")
	})
}

func TestCredentialsAreAskedForAtEachDial(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var mu sync.Mutex
		password, failure := "old", error(nil)
		set := func(p string, err error) {
			mu.Lock()
			defer mu.Unlock()
			password, failure = p, err
		}
		d := dragonflyAt(t, proxytest.Options{RequirePass: "old"})
		asked := func(c *Config) {
			c.Backend.Credentials = func() (string, string, error) {
				mu.Lock()
				defer mu.Unlock()
				return "", password, failure
			}
		}
		h := m.start(t, d.Addr(), asked)
		old := h.dial()
		old.do("+PONG\r\n", "PING")
		set("new", nil)
		w := h.dialAs("another") // whom no lane serves yet
		w.send(cmd("PING"))
		w.want(string(textBackendAuth))
		w.wantCleanEnd()
		h.wantClosed(closeBackendAuth, 1)
		old.do("+PONG\r\n", "PING")
		set("old", nil)
		h.dialAs("a third").do("+PONG\r\n", "PING")
		set("", errors.New("no such file"))
		m.wantUnavailable(t, d.Addr(), "settings", asked)
		set("old", nil)
		h.dialAs("a fourth").do("+PONG\r\n", "PING")
		if s := h.logs.String(); strings.Contains(s, `"old"`) || strings.Contains(s, `"new"`) {
			t.Error("a password is in the log")
		}
	})
}

func TestBackendMaxConnections(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		full := func(c *Config) { c.Backend.MaxConnections = 2 }
		h := m.start(t, d.Addr(), full)
		// Its own dials have that time, too.
		other := m.start(t, d.Addr(), func(c *Config) { full(c); c.unavailableTimeout = 2 * time.Second })
		a, b, c := h.dial(), h.dial(), other.dial()
		// Each has a connection of its own, which is not idle.
		a.send(cmd("BLPOP", "a", "0"))
		b.send(cmd("BLPOP", "b", "0"))
		for i, key := range []string{"c", "d"} {
			c.send(cmd("BLPOP", key, "0"))
			eventually(t, "they block", func() bool { return d.Blocked() == 3+i })
			c = other.dial()
		}
		c.send(cmd("PING"))
		c.want(sayUnavailable)
		c.wantCleanEnd()
		if n := other.Stats().BackendErrors["max_connections"]; n == 0 {
			t.Errorf("errors %v", other.Stats().BackendErrors)
		}
		before := h.Stats().BytesIn
		w := h.dial()
		w.send(cmd("ECHO", "waited"))
		eventually(t, "it is read", func() bool { return h.Stats().BytesIn > before })
		direct := dialPlain(t, d.Addr())
		direct.do(":1\r\n", "RPUSH", "b", "x")
		b.want("*2\r\n$1\r\nb\r\n$1\r\nx\r\n")
		b.do("+OK\r\n", "QUIT")
		w.want("$6\r\nwaited\r\n")
		direct.do(":1\r\n", "RPUSH", "a", "x")
		a.want("*2\r\n$1\r\na\r\n$1\r\nx\r\n")
	})
}

func TestBackendThatNeverAnswersAuth(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.wantUnavailable(t, fakeBackend(t, func(c net.Conn) { io.Copy(io.Discard, c) }), "silent", func(c *Config) {
			c.Backend.Credentials = credentials("", "secret")
			c.Backend.ConnectTimeout = 50 * time.Millisecond
		})
		h.wantReady(false, "")
		if e := h.Stats().BackendErrors; len(e) != 1 {
			t.Errorf("errors %v", e)
		}
	})
}

func TestACancelledDialSaysNothingOfTheBackend(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr := fakeBackend(t, func(c net.Conn) { io.Copy(io.Discard, c) })
		h := m.start(t, addr, func(c *Config) { c.Backend.Credentials = credentials("", "x") })
		c := dialRaw(t, h.addr)
		client := tls.Client(c, testPKI().clientConfig())
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		if m.shared { // a session has no connection of its own before it needs one, and nobody's leaving cancels a lane's dial
			io.WriteString(client, cmd("BLPOP", "q", "0"))
		}
		eventually(t, "it dials", func() bool { return h.Stats().BackendDials >= 2 }) // the prober's and its own
		if m.shared {                                                                 // its reader waits for the connection, and does not see that the client leaves
			h.each(func(s *session) { s.end(closeIdle) })
		}
		c.Close()
		eventually(t, "the session ends", func() bool { return h.Stats().Sessions == 0 && len(h.Stats().SessionsClosed) == 1 })
		if failing := h.backend.IsFailing(); failing || len(h.Stats().BackendErrors) != 0 {
			t.Errorf("dials pause: %v, errors %v", failing, h.Stats().BackendErrors)
		}
	})
}

func TestProberTakesAnyReplyForLife(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, reply := range []string{"+PONG\r\n", "-NOAUTH Authentication required.\r\n", "-LOADING loading\r\n", "-NOPERM no\r\n"} {
			h := m.start(t, scripted(t, func([]string) string { return reply }), nil)
			h.wantReady(true, "")
			if !h.Stats().BackendUp {
				t.Errorf("%q: not up", reply)
			}
		}
	})
}

func TestPanicInADialEndsOneSession(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		var panics atomic.Bool
		d := dragonflyAt(t, proxytest.Options{})
		h := m.start(t, d.Addr(), func(c *Config) {
			target := c.Backend.Target
			c.Backend.Target = func() (string, string, error) {
				if panics.Load() {
					panic("on purpose")
				}
				return target()
			}
			c.Backend.MaxConnections = 2
		})
		h.wantReady(true, "")
		good := h.dial()
		good.do("+PONG\r\n", "PING")
		panics.Store(true)
		for range 5 {
			w := h.dialAs("another") // has no lane yet
			if m.shared {            // and no connection before it sends a command
				w.send(cmd("PING"))
			}
			w.wantEnd()
		}
		h.wantClosed(closeInternalError, 5)
		panics.Store(false)
		good.do("+PONG\r\n", "PING")
		h.dial().do("+PONG\r\n", "PING")
		if n := h.panics.Swap(0); n != 5 { // the harness wants none
			t.Errorf("%d panics, want 5", n)
		}
	})
}
