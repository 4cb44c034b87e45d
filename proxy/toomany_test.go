package proxy

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The reason why a command is refused reaches a client that first writes the whole command and reads only then.
func TestErrorOfTooManyArgumentsReachesAClientThatWritesFirst(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), nil)
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		args := []string{"SADD", "big"}
		for range 70_000 {
			args = append(args, strings.Repeat("m", 100))
		}
		w.send(cmd(args...))
		w.want("-ERR Protocol error: -ERR Protocol error: invalid multibulk length\r\n")
		if rest := w.wantEnd(); rest != "" {
			t.Errorf("then %q", rest)
		}
		w.Close()
		h.wantClosed(closeProtocol, 1)
	})
}

// So does what the backend says of a command that it refuses at its header, before it closes.
func TestLastWordOfTheBackendReachesAClientThatWritesFirst(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t, "--proto-max-bulk-len", "1mb"), nil)
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		w.send(cmd("SET", "big", strings.Repeat("v", 8<<20)))
		w.want("-ERR Protocol error: invalid bulk length\r\n")
	})
}

// A client that takes its time to write a command that is refused gets the error too: what it sends is dropped for as long as it
// goes on, up to a limit.
func TestErrorReachesAClientThatWritesForLong(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const silence = 2 * time.Second
		h := m.start(t, redisServer(t), func(c *Config) { c.lingerTimeout, c.lingerLimit = silence, patience })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		w.send("*70000\r\n")
		for begun := time.Now(); time.Since(begun) < silence*3/2; <-time.After(silence / 20) {
			w.send("$1\r\nm\r\n")
		}
		w.want("-ERR Protocol error: -ERR Protocol error: invalid multibulk length\r\n")
		if rest := w.wantEnd(); rest != "" {
			t.Errorf("then %q", rest)
		}
		w.Close()
		h.wantClosed(closeProtocol, 1)
	})
}

// A client that never stops is closed all the same.
func TestClientThatNeverStopsSendingIsClosed(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t), func(c *Config) { c.lingerTimeout, c.lingerLimit = patience, 50*time.Millisecond })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		w.send("*70000\r\n")
		w.SetWriteDeadline(time.Now().Add(patience))
		for {
			if _, err := io.WriteString(w, "$1\r\nm\r\n"); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("it is still open")
				}
				break
			}
		}
		h.wantClosed(closeProtocol, 1)
	})
}

// A command may have as many arguments as Redis takes, where the setting says so, at no more memory than a big value costs.
func TestAsManyArgumentsAsRedisTakes(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		const most = 1 << 20
		h := m.start(t, redisServer(t), func(c *Config) { c.MaxArgs = most })
		w := h.dial()
		w.do("+PONG\r\n", "PING")
		members := func(n int) (args []string) {
			args = append(args, "SADD", "big")
			for i := range n {
				args = append(args, strconv.Itoa(i))
			}
			return args
		}
		w.do(":70000\r\n", members(70_000)...)
		w.do(":"+strconv.Itoa(most-2-70_000)+"\r\n", members(most-2)...)
		w.send(cmd(members(most - 1)...))
		w.want("-ERR Protocol error: -ERR Protocol error: invalid multibulk length\r\n")
	})
}
