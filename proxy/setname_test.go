package proxy

import (
	"crypto/tls"
	"strings"
	"testing"

	"dragontls/proxy/proxytest"
)

func named(c *Config) { c.Backend.SetName = true }

func TestClientListNamesTheCertificate(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, backend := range []string{"redis", "dragonfly"} {
			addr := ""
			if backend == "redis" {
				addr = redisWithUsers(t, "web")
			} else {
				addr = dragonflyWithUsers(t, "web").Addr()
			}
			w := m.start(t, addr, func(c *Config) { mappedTo(mapping("web"))(c); named(c) }).dialAs("web")
			w.do("$13\r\ndragontls:web\r\n", "CLIENT", "GETNAME")
			w.do("+OK\r\n", "CLIENT", "SETNAME", "mine")
			w.do("$4\r\nmine\r\n", "CLIENT", "GETNAME")
			w.do("+RESET\r\n", "RESET")
			w.do("$13\r\ndragontls:web\r\n", "CLIENT", "GETNAME")
			w.actsAs("web")
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

func TestBackendThatIsFullIsTriedAgain(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonfly(t, proxytest.Options{})
		full := make(chan struct{}, 1)
		full <- struct{}{}
		d.SetOnCommand(func(conn int, args [][]byte) ([]byte, bool) {
			if string(args[0]) != "CLIENT" {
				return nil, false
			}
			select {
			case <-full:
				return []byte("-ERR max number of clients reached\r\n"), true
			default:
				return nil, false
			}
		})
		h := m.start(t, d.Addr(), func(c *Config) { c.Recheck = (&judgement{}).recheck; named(c) })
		h.dial().do("+PONG\r\n", "PING")
		if n := h.Stats().BackendErrors["busy"]; n != 1 {
			t.Errorf("counted %d times", n)
		}
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
