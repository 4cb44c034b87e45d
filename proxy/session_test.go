package proxy

import (
	"strconv"
	"strings"
	"testing"

	"dragontls/proxy/proxytest"
)

func TestCommandsAndRepliesPassUnchanged(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		w.do("+OK\r\n", "SET", "k", "v\r\n\x00")
		w.do("$4\r\nv\r\n\x00\r\n", "GET", "k")
		w.send("PING\r\n\r\n  \r\nping hello\n")
		w.want("+PONG\r\n$5\r\nhello\r\n")
		w.send("*01\r\n$004\r\nPING\r\n")
		w.want("+PONG\r\n")
		big := strings.Repeat("x", 5<<20)
		w.do("+OK\r\n", "SET", "big", big)
		w.do("$5242880\r\n"+big+"\r\n", "GET", "big")
		w.send(strings.Repeat(cmd("INCR", "n"), 10000))
		for i := range 10000 {
			w.want(":" + strconv.Itoa(i+1) + "\r\n")
		}
		w.do("+OK\r\n", "QUIT")
		if s := w.wantEnd(); s != "" {
			t.Errorf("after QUIT: %q", s)
		}
	})
}

func TestRefusedCommandIsAnsweredInItsPlace(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.DenyCommands = []string{"SHUTDOWN", "CONFIG|SET"} })
		w := h.dial()
		refused := "-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n"
		w.send(cmd("PING") + cmd("shutdown", "nosave") + cmd("ECHO", "a") + cmd("CONFIG", "set", "maxmemory", "1") + cmd("ECHO", "b"))
		w.want("+PONG\r\n" + refused + "$1\r\na\r\n-NOPERM dragontls: the command CONFIG SET is refused here (DENY_COMMANDS)\r\n$1\r\nb\r\n")
		// Redis compares words as C strings.
		w.send(cmd("CONFIG", "set\x00x", "maxclients", "9") + cmd("CONFIG\x00x", "SET", "maxclients", "9") + cmd("shutdown\x00", "NOW"))
		w.want(string(textSub) + string(textName) + string(textName))
		w.do(refused, "SHUTDOWN")
		w.send(cmd("SHUTDOWN", strings.Repeat("x", 1<<20)) + cmd("PING"))
		w.want(refused + "+PONG\r\n")
		w.send(cmd("MULTI") + cmd("SET", "a", "1") + cmd("SHUTDOWN") + cmd("SET", "b", "1") + cmd("EXEC") + cmd("EXISTS", "a", "b"))
		w.want("+OK\r\n+QUEUED\r\n" + refused + "+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors\r\n:0\r\n")
		w.send(cmd("MULTI") + cmd("SET", "a", "1") + cmd("EXEC"))
		w.want("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
	})
}

func TestDoomedTransactionStaysDoomedWhereDiscardIsNotPermitted(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{Users: []proxytest.User{{Name: "web", Password: "pw", Deny: []string{"DISCARD"}}}})
		h := m.start(t, d.Addr(), func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
		w := h.dial()
		w.do("+OK\r\n", "AUTH", "web", "pw")
		noperm := "-NOPERM web has no ACL permissions\r\n"
		w.send(cmd("MULTI") + cmd("SET", "a", "1") + cmd("SHUTDOWN") + cmd("EXEC"))
		w.want("+OK\r\n+QUEUED\r\n-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n" + noperm)
		w.send(cmd("MULTI") + cmd("SET", "c", "1") + cmd("EXEC"))
		w.want("+OK\r\n+QUEUED\r\n" + noperm)
		if a, ok := d.String(0, "a"); ok {
			t.Errorf("the doomed transaction ran: a is %q", a)
		}
	})
}
