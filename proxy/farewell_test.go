package proxy

import (
	"crypto/tls"
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
