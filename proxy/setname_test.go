package proxy

import (
	"crypto/tls"
	"regexp"
	"strings"
	"testing"

	"dragontls/proxy/proxytest"
)

func named(c *Config) { c.Backend.SetName = true }

// CLIENT GETNAME answers what the client itself has set, in every form in which it can be asked, and operators see the name of
// the certificate until then.
func TestClientListNamesTheCertificate(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const given = "dragontls:web"
		for name, backend := range map[string]func() string{
			"redis":     func() string { return redisWithUsers(t, "web") },
			"dragonfly": func() string { return dragonflyWithUsers(t, "web").Addr() },
		} {
			t.Run(name, func(t *testing.T) {
				addr := backend()
				h := m.start(t, addr, func(c *Config) { mappedTo(mapping("web"))(c); named(c) })
				w, operator := h.dialAs("web"), dialPlain(t, addr)
				operator.do("+OK\r\n", "AUTH", "web", "webpw")
				listed := func(name string) bool {
					operator.send(cmd("CLIENT", "LIST"))
					return strings.Contains(operator.bulk(), " name="+name+" ")
				}
				w.do("$-1\r\n", "CLIENT", "GETNAME")
				if !listed(given) {
					t.Error("CLIENT LIST does not show the name of the certificate")
				}
				w.send(cmd("ECHO", "a") + cmd("client", "getname") + cmd("ECHO", "b") + "CLIENT GETNAME\r\n")
				w.want(bulk("a") + "$-1\r\n" + bulk("b") + "$-1\r\n")
				w.hello("3")
				w.do("_\r\n", "CLIENT", "GETNAME")
				w.hello("2")
				w.do("$-1\r\n", "CLIENT", "GETNAME")
				w.do("+OK\r\n", "CLIENT", "SETNAME", "mine")
				w.do(bulk("mine"), "CLIENT", "GETNAME")
				if !listed("mine") {
					t.Error("CLIENT LIST does not show the name that the client set")
				}
				w.do("+RESET\r\n", "RESET")
				w.do("$-1\r\n", "CLIENT", "GETNAME")
				w.do("+OK\r\n", "CLIENT", "SETNAME", given)
				w.do(bulk(given), "CLIENT", "GETNAME")
				w.actsAs("web")
			})
		}
	})
}

// The same where the client authenticates in the HELLO that chooses its protocol.
func TestNameIsNullInTheProtocolOfTheClient(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		r := redisWithUsers(t, "web")
		w := m.start(t, r, func(c *Config) { c.Recheck = (&judgement{}).recheck; named(c) }).dial()
		for proto, null := range map[string]string{"3": "_\r\n", "2": "$-1\r\n"} {
			w.send(cmd("HELLO", proto, "AUTH", "web", "webpw") + cmd("CLIENT", "GETNAME") + cmd("ECHO", "end"))
			if got := w.until(bulk("end")); !strings.HasSuffix(got, null+bulk("end")) {
				t.Errorf("RESP%s: got %q, want %q", proto, got, null)
			}
		}
	})
}

// A reply to CLIENT GETNAME is taken as a whole, however it comes.
func TestNameInPieces(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		long := strings.Repeat("n", 70000)
		for reply, want := range map[string]string{
			bulk("dragontls:client"):  "$-1\r\n",
			bulk("dragontls:clients"): bulk("dragontls:clients"),
			bulk("dragontls:clienT"):  bulk("dragontls:clienT"),
			bulk(""):                  bulk(""),
			bulk(long):                bulk(long),
			"$-1\r\n":                 "$-1\r\n",
			"-NOPERM no\r\n":          "-NOPERM no\r\n",
		} {
			b := newLaneBackend(t)
			b.on(func(c *laneConn, args []string) (string, bool) {
				if args[0] != "CLIENT" || args[1] != "GETNAME" {
					return "", false
				}
				for i := range reply {
					c.w.WriteByte(reply[i])
					if i < 100 {
						c.w.Flush()
					}
				}
				return "", true
			})
			h := m.start(t, b.addr, func(c *Config) {
				named(c)
				c.Recheck = (&judgement{}).recheck
				c.Backend.Credentials = credentials("", "secret")
			})
			w := h.dial()
			w.send(cmd("INFO") + cmd("CLIENT", "GETNAME") + cmd("INFO"))
			w.want(bulk("info") + want + bulk("info"))
			if m.shared && h.sessionOf(w).keepsOwn() {
				t.Error("the session keeps its own connection")
			}
		}
	})
}

// A RESET takes the name off a connection on which the client authenticates itself: operators see the certificate's name again
// when it is answered, in both modes.
func TestConnectionBearsTheNameAgainAfterRESET(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		addr := redisServer(t)
		w := m.start(t, addr, func(c *Config) { c.Recheck = (&judgement{}).recheck; named(c) }).dialAs("web")
		operator := dialPlain(t, addr)
		names := func() string {
			operator.send(cmd("CLIENT", "LIST", "TYPE", "normal"))
			list := operator.bulk()
			return strings.Join(regexp.MustCompile(`name=\S+`).FindAllString(list, -1), " ")
		}
		for range 2 {
			w.do("+OK\r\n", "CLIENT", "SETNAME", "mine")
			if got := names(); got != "name=mine" {
				t.Errorf("before RESET: %s", got)
			}
			w.send(cmd("RESET") + cmd("SELECT", "1"))
			w.want("+RESET\r\n+OK\r\n")
			if got := names(); got != "name=dragontls:web" {
				t.Errorf("after RESET: %s", got)
			}
		}
		w.send(cmd("SUBSCRIBE", "c") + cmd("RESET"))
		w.want("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n+RESET\r\n")
		w.do("+OK\r\n", "SELECT", "1")
		if got := names(); got != "name=dragontls:web" {
			t.Errorf("after the RESET of a subscriber: %s", got)
		}
	})
}

// A backend that refuses the name after RESET, or says something else, is treated as one that does so before the first command.
func TestNameThatIsRefusedAfterRESETCostsNothing(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for reply, goesOn := range map[string]bool{"-NOAUTH Authentication required.\r\n": true, "$2\r\nOK\r\n": false} {
			d := dragonfly(t, proxytest.Options{})
			h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = (&judgement{}).recheck; named(c) })
			w := h.dialAs("web")
			w.do("+OK\r\n", "SELECT", "1")
			d.SetOnCommand(func(_ int, args [][]byte) ([]byte, bool) {
				return []byte(reply), string(args[0]) == "CLIENT"
			})
			w.send(cmd("RESET"))
			if goesOn {
				w.want("+RESET\r\n")
				w.do("+OK\r\n", "SELECT", "2")
				continue
			}
			if got := w.wantEnd(); got != "" && got != "+RESET\r\n" {
				t.Errorf("got %q", got)
			}
			h.wantClosed(closeBackendError, 1)
		}
	})
}

// The name goes with AUTH, in one write, and before any byte of the client.
func TestNameCostsNoRoundTripBehindAuth(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{RequirePass: "top", RawLimit: 1 << 10, Users: []proxytest.User{{Name: "web", Password: "webpw"}}})
		reached, release := make(chan int, 1), make(chan struct{})
		d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) {
			if string(args[0]) == "AUTH" {
				select {
				case reached <- conn:
				default:
				}
				select {
				case <-release:
				case <-d.Done():
				}
			}
			return nil, false
		})
		h := m.start(t, d.Addr(), func(c *Config) { mappedTo(mapping("web"))(c); named(c) })
		w := h.dialAs("web")
		w.send(cmd("ECHO", "behind"))
		conn := <-reached
		want := cmd("PING") + cmd("AUTH", "web", "webpw") + cmd("CLIENT", "SETNAME", "dragontls:web")
		if got := string(d.RawBytes(conn)); m.withoutLaneSetUp(got) != want {
			t.Errorf("sent %q before an answer, want %q", got, want)
		}
		close(release)
		w.want("$6\r\nbehind\r\n")
	})
}

// What else comes is no answer to the name: the replies behind it would shift.
func TestOnlyAnAnswerToTheNameIsTaken(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, reply := range []string{"+OK\r\n+EXTRA\r\n", "+OKAY\r\n", "$2\r\nOK\r\n", ">1\r\n+OK\r\n"} {
			d := dragonfly(t, proxytest.Options{RequirePass: "top", Users: []proxytest.User{{Name: "web", Password: "webpw"}}})
			d.SetOnCommand(func(_ int, args [][]byte) ([]byte, bool) {
				return []byte(reply), string(args[0]) == "CLIENT"
			})
			m.wantUnavailable(t, d.Addr(), "unasked", func(c *Config) { mappedTo(mapping("web"))(c); named(c) })
		}
	})
}

func TestNameThatIsRefusedCostsNothing(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, reply := range []string{"-NOPERM no\r\n", "-ERR unknown command\r\n", "-NOAUTH Authentication required.\r\n", "-LOADING x\r\n"} {
			for _, users := range []bool{true, false} {
				o := proxytest.Options{}
				j := &judgement{}
				if users {
					o = proxytest.Options{RequirePass: "top", Users: []proxytest.User{{Name: "web", Password: "webpw"}}}
					j = mapping("web")
				}
				d := dragonfly(t, o)
				d.SetOnCommand(func(_ int, args [][]byte) ([]byte, bool) {
					return []byte(reply), string(args[0]) == "CLIENT"
				})
				w := m.start(t, d.Addr(), func(c *Config) { c.Recheck = j.recheck; named(c) }).dialAs("web")
				w.send(cmd("ECHO", "a") + cmd("ECHO", "b"))
				w.want("$1\r\na\r\n$1\r\nb\r\n")
			}
		}
	})
}

func TestNameNeedsACertificateAndASwitch(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, change := range []func(*Config){
			func(c *Config) { named(c); c.TLS.ClientAuth = tls.NoClientCert },
			func(c *Config) { c.Recheck = (&judgement{}).recheck },
		} {
			w := m.start(t, redisServer(t), change).dial()
			w.do("$-1\r\n", "CLIENT", "GETNAME")
		}
	})
}

func TestClientThatAuthenticatesItselfMeetsNOAUTH(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisWithUsers(t, "web"), func(c *Config) { c.Recheck = (&judgement{}).recheck; named(c) })
		w := h.dial()
		w.do("-NOAUTH Authentication required.\r\n", "GET", "k")
		w.do("+OK\r\n", "AUTH", "web", "webpw")
		w.actsAs("web")
	})
}

// A backend that is full says so to the client whose connection it refuses, and serves the next one when it has a place.
func TestBackendThatIsFullIsTriedAgain(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{})
		const full = "-ERR max number of clients reached\r\n"
		d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) { return []byte(full), string(args[0]) == "CLIENT" })
		h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = (&judgement{}).recheck; named(c) })
		h.dial().do(full, "PING")
		if n := h.Stats().BackendErrors["max_clients"]; n == 0 {
			t.Errorf("counted %d times", n)
		}
		d.SetOnCommand(nil)
		h.dial().do("+PONG\r\n", "PING")
	})
}

func TestConnectionNames(t *testing.T) {
	for name, want := range map[string]string{
		"web-1":                  "dragontls:web-1",
		"a b\r\nc\x00":           "dragontls:a_b__c_",
		"Zürich":                 "dragontls:Z_rich",
		"":                       "dragontls:",
		"\xff\xfe":               "dragontls:__",
		strings.Repeat("x", 100): "dragontls:" + strings.Repeat("x", 54),
	} {
		if got := connectionName(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
