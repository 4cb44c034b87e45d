package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// hiddenCommands are commands that do harm where they run, each with the place of the word that is hidden: in it a NUL, random
// bytes and, mostly, more bytes than the proxy holds follow. tries is how often each is sent. redis-server has 256 buckets for
// the names of its commands, and 8 to 32 for the subcommands of one: a proxy that passes these words on lets each of them run
// with a probability of three in four at least, and misses all of them once in e^20 runs.
var hiddenCommands = []struct {
	args  []string
	at    int
	tries int
}{
	{[]string{"AUTH", "other", "otherpw"}, 0, 400},
	{[]string{"HELLO", "2", "AUTH", "other", "otherpw"}, 0, 400},
	{[]string{"RESET"}, 0, 400},
	{[]string{"FLUSHALL"}, 0, 400},
	{[]string{"CONFIG", "SET", "maxmemory", "123456789"}, 0, 400},
	{[]string{"CONFIG", "SET", "maxmemory", "123456789"}, 1, 150},
	{[]string{"ACL", "SETUSER", "intruder", "on"}, 0, 400},
	{[]string{"FUNCTION", "FLUSH"}, 1, 150},
	{[]string{"CLIENT", "REPLY", "OFF"}, 0, 400},
	{[]string{"CLIENT", "REPLY", "OFF"}, 1, 150},
	{[]string{"MULTI"}, 0, 400},
	{[]string{"SUBSCRIBE", "c"}, 0, 400},
	{[]string{"SHUTDOWN", "NOSAVE"}, 0, 400}, // the last: redis-server ends with it
}

// hide returns the command with a NUL and more in its word at place at. One in eight fits into what the proxy holds.
func hide(args []string, at int, r *rand.Rand, i int) string {
	hidden := append([]string(nil), args...)
	hidden[at] += fmt.Sprintf("\x00%016x", r.Uint64())
	if i%8 != 0 {
		hidden[at] += strings.Repeat("x", 66_000)
	}
	return cmd(hidden...)
}

const nulLibrary = "#!lua name=kept\nredis.register_function('kept', function() return 1 end)"

// Nothing that a client hides behind a NUL runs on redis-server: the server, its data, its settings and its users stay as they
// are, the client stays who it is, each of its commands has one reply, and its neighbours keep theirs.
func TestNothingHidesBehindANUL(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	t.Logf("TEST_SEED=%d", seed)
	eachMode(t, func(t *testing.T, m mode) {
		addr := redisWithUsers(t, "client", "other")
		h := m.start(t, addr, func(c *Config) {
			c.DenyCommands = []string{"SHUTDOWN", "CONFIG|SET", "ACL|SETUSER", "CLIENT|REPLY"}
			mappedTo(mapping("client", "other"))(c)
		})
		admin, sameIdentity, other := dialPlain(t, addr), h.dial(), h.dialAs("other")
		admin.do("+OK\r\n", "AUTH", "top")
		r := rand.New(rand.NewPCG(seed, 16))
		for _, hidden := range hiddenCommands {
			t.Run(strings.ReplaceAll(strings.Join(hidden.args[:hidden.at+1], " "), " ", "_"), func(t *testing.T) {
				const batch = 25
				w := h.dial()
				w.t, admin.t, sameIdentity.t, other.t = t, t, t, t
				admin.do("+OK\r\n", "SET", "kept", "a value")
				admin.do("+OK\r\n", "CONFIG", "SET", "maxmemory", "0")
				admin.do("$4\r\nkept\r\n", "FUNCTION", "LOAD", "REPLACE", nulLibrary)
				for i := 0; i < hidden.tries; i += batch {
					var b strings.Builder
					for j := range batch {
						b.WriteString(hide(hidden.args, hidden.at, r, i+j))
					}
					mark := fmt.Sprintf("the end of batch %d", i)
					w.send(b.String() + cmd("ECHO", mark))
					sameIdentity.do(bulk("a value"), "GET", "kept")
					other.do(bulk(mark), "ECHO", mark)
					w.wantErrors(batch)
					w.want(bulk(mark))
				}
				w.actsAs("client")
				w.do("-ERR EXEC without MULTI\r\n", "EXEC")
				admin.do(bulk("a value"), "GET", "kept")
				admin.do("*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n", "CONFIG", "GET", "maxmemory")
				admin.do("*3\r\n$6\r\nclient\r\n$7\r\ndefault\r\n$5\r\nother\r\n", "ACL", "USERS")
				admin.do(":1\r\n", "FCALL", "kept", "0")
			})
		}
	})
}

// wantErrors reads n lines that are errors.
func (w *wire) wantErrors(n int) {
	w.t.Helper()
	for i := range n {
		w.SetReadDeadline(time.Now().Add(patience))
		line, err := w.r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "-") {
			w.t.Fatalf("reply %d of %d: got %.200q (%v), want an error", i, n, line, err)
		}
	}
}
