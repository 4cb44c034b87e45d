package proxy

import (
	"strings"
	"testing"
)

// A client whose command waits for others is told of a loss as it would be over a direct connection: by the end of its own.
func TestLossClosesWhoIsBlocked(t *testing.T) {
	t.Parallel()
	for name, blocks := range map[string][]string{
		"BLPOP":      {"BLPOP", "q", "0"},
		"BRPOP":      {"BRPOP", "q", "0"},
		"BLMOVE":     {"BLMOVE", "q", "r", "LEFT", "LEFT", "0"},
		"BLMPOP":     {"BLMPOP", "0", "1", "q", "LEFT"},
		"BZPOPMIN":   {"BZPOPMIN", "z", "0"},
		"BZMPOP":     {"BZMPOP", "0", "1", "z", "MIN"},
		"XREAD":      {"XREAD", "BLOCK", "0", "STREAMS", "s", "$"},
		"XREADGROUP": {"XREADGROUP", "GROUP", "g", "me", "BLOCK", "0", "STREAMS", "s", ">"},
		"WAIT":       {"WAIT", "1", "0"},
	} {
		for _, behind := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " with commands before and after it"}[behind], func(t *testing.T) {
				t.Parallel()
				eachMode(t, func(t *testing.T, m mode) {
					r := newMortalRedis(t)
					direct := dialPlain(t, r.socket)
					direct.do("+OK\r\n", "XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
					h := m.start(t, r.socket, nil)
					w := h.dial()
					w.do("+PONG\r\n", "PING")
					w.do("+OK\r\n", "SET", "k", "v")
					sent, before := cmd(blocks...), ""
					if behind {
						sent, before = cmd("GET", "k")+sent+cmd("GET", "k"), bulk("v")
					}
					w.send(sent)
					eventually(t, "it blocks", func() bool {
						direct.send(cmd("INFO", "clients"))
						info := direct.bulk()
						return strings.Contains(info, "blocked_clients:1\r\n")
					})
					w.want(before)
					r.kill()
					if got := w.wantEnd(); got != "" {
						t.Errorf("got %q", got)
					}
				})
			})
		}
	}
}
