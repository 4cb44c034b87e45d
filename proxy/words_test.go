package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/command"
	"dragontls/proxy/proxytest"
)

// tooLong does not fit into what the proxy holds of a command.
var tooLong = strings.Repeat("x", 66_000)

// decisions has a row for each decision that the proxy makes on a word, and for each way in which that word can be read
// differently: how a reply begins on redis-server, on Dragonfly and through the proxy before redis-server. %r stands for
// random bytes: where there are some, redis-server gives this reply in some of many tries. state is what the proxy has
// concluded: the session is own for life (in mode shared), or its replies are not counted any more.
var decisions = []struct {
	decision  string
	args      []string
	line      string // instead of args: an inline command
	redis     string
	dragonfly string
	dragontls string
	state     string
}{
	{decision: "which command: its name", args: []string{"nosuch" + strings.Repeat("x", 60_000)}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: "-ERR unknown command"},
	{decision: "the name up to a NUL", args: []string{"PING\x00%r"}, redis: "+PONG", dragonfly: "-ERR unknown command", dragontls: string(textName)},
	{decision: "an unknown name up to a NUL", args: []string{"nosuch\x00"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: string(textName)},
	{decision: "the name up to a NUL, as a line", line: "PING\x00%r\r\n", redis: "(a line ends at a NUL)", dragonfly: "", dragontls: string(textName)},
	{decision: "a name that is not complete", args: []string{"PING\x00%r" + tooLong}, redis: "+PONG", dragonfly: "-ERR unknown command", dragontls: string(textLongName)},
	{decision: "a name that is not complete, without NUL", args: []string{tooLong}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: string(textLongName)},
	{decision: "a denied name in any case", args: []string{"dEcR", "n"}, redis: ":-", dragonfly: ":-", dragontls: denied("DECR")},
	{decision: "a denied name above 64 KiB of arguments", args: []string{"DECR", tooLong}, redis: ":-", dragonfly: ":-", dragontls: denied("DECR")},
	{decision: "a denied name in a case that is not ASCII", args: []string{"\u017fTRLEN", "k"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: "-ERR unknown command"},
	{decision: "a denied name after a blank", args: []string{" DECR", "n"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: denied("DECR")},
	{decision: "a denied name before a tab", args: []string{"DECR\tx", "n"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: denied("DECR")},
	{decision: "a denied name before CR LF", args: []string{"DECR\r\n", "n"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: denied("DECR")},
	{decision: "a denied name and its subcommand with a '|'", args: []string{"CONFIG|SET", "maxmemory", "0"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: "-ERR unknown command"},
	{decision: "a name of two words", args: []string{"ACL SETUSER", "new"}, redis: "-ERR unknown command", dragonfly: "+OK", dragontls: denied("ACL SETUSER")},

	{decision: "a denied subcommand in any case", args: []string{"config", "sEt", "maxmemory", "0"}, redis: "+OK", dragonfly: "+OK", dragontls: denied("CONFIG SET")},
	{decision: "the subcommand up to a NUL", args: []string{"CONFIG", "SET\x00%r", "maxmemory", "0"}, redis: "+OK", dragonfly: "-ERR", dragontls: string(textSub)},
	{decision: "a subcommand that is not complete", args: []string{"CONFIG", "SET\x00%r" + tooLong, "maxmemory", "0"}, redis: "+OK", dragonfly: "-ERR", dragontls: string(textLongSub)},
	{decision: "a denied subcommand in a case that is not ASCII", args: []string{"CONFIG", "\u017fET", "maxmemory", "0"}, redis: "-ERR unknown subcommand", dragonfly: "-ERR", dragontls: "-ERR unknown subcommand"},
	{decision: "a denied subcommand after blanks", args: []string{"CONFIG", strings.Repeat(" ", 200) + "SET", "maxmemory", "0"}, redis: "-ERR unknown subcommand", dragonfly: "-ERR", dragontls: denied("CONFIG SET")},
	{decision: "a second word that decides nothing", args: []string{"GET", "k\x00"}, redis: "$-1", dragonfly: "$-1", dragontls: "$-1"},
	{decision: "a second word that decides nothing and is not complete", args: []string{"GET", "k\x00" + tooLong}, redis: "$-1", dragonfly: "$-1", dragontls: "$-1"},

	{decision: "a ruled subcommand", args: []string{"my.module", "sEt"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: forbidden("the command MY.MODULE SET")},
	{decision: "a ruled subcommand up to a NUL", args: []string{"MY.MODULE", "SET\x00x"}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: string(textSub)},
	{decision: "a ruled subcommand that is not complete", args: []string{"MY.MODULE", "SET\x00" + tooLong}, redis: "-ERR unknown command", dragonfly: "-ERR unknown command", dragontls: string(textLongSub)},

	{decision: "HELLO authenticates", args: []string{"HELLO", "2", "auth", "other", "otherpw"}, redis: "*14", dragonfly: "*14", dragontls: string(textWrongPass)},
	{decision: "HELLO authenticates, up to a NUL", args: []string{"HELLO", "2", "AUTH\x00x", "other", "otherpw"}, redis: "*14", dragonfly: "-ERR", dragontls: string(textOwnAuth)},
	{decision: "HELLO authenticates, not complete", args: []string{"HELLO", "2", "AUTH\x00" + tooLong, "other", "otherpw"}, redis: "*14", dragonfly: "-ERR", dragontls: string(textTooLong)},
	{decision: "HELLO names, up to a NUL", args: []string{"HELLO", "2", "SETNAME\x00x", "n"}, redis: "*14", dragonfly: "-ERR", dragontls: string(textOption)},
	{decision: "HELLO names, in a case that is not ASCII", args: []string{"HELLO", "2", "\u017fETNAME", "n"}, redis: "-ERR", dragonfly: "-ERR", dragontls: "-ERR"},
	{decision: "the protocol of HELLO", args: []string{"HELLO", "02"}, redis: "-ERR", dragonfly: "-ERR", dragontls: "-ERR"},
	{decision: "the database", args: []string{"SELECT", "+0"}, redis: "-ERR", dragonfly: "+OK", dragontls: "-ERR"},
	{decision: "the database in plain digits", args: []string{"SELECT", "0"}, redis: "+OK", dragonfly: "+OK", dragontls: "+OK"},

	{decision: "replies are counted", args: []string{"CLIENT", "REPLYx", "ON"}, redis: "-ERR", dragonfly: "-ERR", dragontls: "-ERR"},
	{decision: "replies are not counted", args: []string{"client", "rePly", "ON"}, redis: "+OK", dragonfly: "-ERR", dragontls: "+OK", state: "uncounted"},
	{decision: "replies are not counted, a long word after it", args: []string{"CLIENT", "REPLY", "ON\x00" + tooLong}, redis: "+OK", dragonfly: "-ERR", dragontls: "+OK", state: "uncounted"},
	{decision: "replies are not counted, up to a NUL", args: []string{"CLIENT", "REPLY\x00%r", "ON"}, redis: "+OK", dragonfly: "-ERR", dragontls: string(textSub)},
	{decision: "MULTI has no arguments", args: []string{"MULTI", "x"}, redis: "-ERR wrong number", dragonfly: "-ERR wrong number", dragontls: "-ERR wrong number"},
	{decision: "MULTI has no arguments, however long", args: []string{"MULTI", tooLong}, redis: "-ERR wrong number", dragonfly: "-ERR wrong number", dragontls: "-ERR wrong number", state: "own for life"},
	{decision: "a connection's name", args: []string{"CLIENT", "SETNAME", "n"}, redis: "+OK", dragonfly: "+OK", dragontls: "+OK"},
	{decision: "a connection's name that is not complete", args: []string{"CLIENT", "SETNAME", tooLong}, redis: "+OK", dragonfly: "+OK", dragontls: "+OK", state: "own for life"},

	{decision: "a script leaves no state", args: []string{"EVAL", "return 1", "0"}, redis: ":1", dragonfly: ":1", dragontls: ":1"},
	{decision: "a script with a NUL", args: []string{"EVAL", "return 1 --\x00\n", "0"}, redis: ":1", dragonfly: "", dragontls: ":1", state: "own for life"},
	{decision: "a script that is not complete", args: []string{"EVAL", "return 1 --" + tooLong, "0"}, redis: ":1", dragonfly: "", dragontls: ":1", state: "own for life"},
	{decision: "a script's command in a case that is not ASCII", args: []string{"EVAL", "redis.pcall('\u017fET', 'k', 'v') return 1", "0"}, redis: ":1", dragonfly: "", dragontls: ":1", state: "own for life"},
	{decision: "a script's command up to a NUL", args: []string{"EVAL", "redis.pcall('SET\x00', 'k', 'v') return 1", "0"}, redis: ":1", dragonfly: "", dragontls: ":1", state: "own for life"},
}

func TestEachDecisionReadsWordsAsTheBackendDoes(t *testing.T) {
	seed := testSeed(t)
	t.Logf("TEST_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 17))
	redis := redisWithUsers(t, "web", "other")
	d := dragonfly(t, proxytest.Options{Users: []proxytest.User{{Name: "other", Password: "otherpw"}}})
	for _, tt := range decisions {
		t.Run(strings.ReplaceAll(tt.decision, " ", "_"), func(t *testing.T) {
			if tt.line == "" { // no backend ever sees a line
				w := dialPlain(t, redis)
				w.do("+OK\r\n", "AUTH", "top")
				got := w.replyTo(tt.args, "", r)
				for n := 0; !strings.HasPrefix(got, tt.redis) && n < 5000 && strings.Contains(strings.Join(tt.args, " "), "%r"); n++ {
					got = w.replyTo(tt.args, "", r)
				}
				if !strings.HasPrefix(got, tt.redis) {
					t.Errorf("redis-server answers %.200q, want %q", got, tt.redis)
				}
			}
			if got := dialPlain(t, d.Addr()).replyTo(tt.args, tt.line, r); !strings.HasPrefix(got, tt.dragonfly) {
				t.Errorf("Dragonfly answers %.200q, want %q", got, tt.dragonfly)
			}
		})
	}
	eachMode(t, func(t *testing.T, m mode) {
		r := rand.New(rand.NewPCG(seed, 18)) // the modes run side by side
		h := m.start(t, redis, func(c *Config) {
			c.DenyCommands = []string{"DECR", "STRLEN", "CONFIG|SET", "ACL|SETUSER"}
			mappedTo(ruledClient(t, command.RuleOptions{Deny: []string{"MY.MODULE|SET"}}))(c)
		})
		for _, tt := range decisions {
			t.Run(strings.ReplaceAll(tt.decision, " ", "_"), func(t *testing.T) {
				w := h.dial()
				w.t = t
				if got := w.replyTo(tt.args, tt.line, r); !strings.HasPrefix(got, tt.dragontls) {
					t.Errorf("got %.200q, want %q", got, tt.dragontls)
				}
				if got := w.replyTo([]string{"EXEC"}, "", r); got != "-ERR EXEC without MULTI\r\n" {
					t.Errorf("EXEC is answered %q", got)
				}
				s, state := h.sessionAt(w), ""
				switch {
				case s.uncounting():
					state = "uncounted"
				case s.keepsOwn():
					state = "own for life"
				}
				want := tt.state
				if want == "" && !m.shared {
					want = "own for life" // as from the beginning
				}
				if state != want {
					t.Errorf("the session is %q, want %q", state, want)
				}
			})
		}
	})
}

// replyTo sends a command, with random bytes for %r, and returns its reply.
func (w *wire) replyTo(args []string, line string, r *rand.Rand) string {
	w.t.Helper()
	mark := fmt.Sprintf("%016x", r.Uint64())
	filled := make([]string, len(args))
	for i, a := range args {
		filled[i] = strings.ReplaceAll(a, "%r", mark)
	}
	command := strings.ReplaceAll(line, "%r", mark)
	if line == "" {
		command = cmd(filled...)
	}
	const end = "the end of this reply"
	w.send(command + cmd("ECHO", end))
	w.SetReadDeadline(time.Now().Add(patience))
	var got strings.Builder
	for !strings.HasSuffix(got.String(), bulk(end)) {
		l, err := w.r.ReadString('\n')
		got.WriteString(l)
		if err != nil {
			w.t.Fatalf("got %.200q, then %v", got.String(), err)
		}
	}
	return strings.TrimSuffix(got.String(), bulk(end))
}

// sessionAt is the session of a client in any mode.
func (h *harness) sessionAt(w *wire) (found *session) {
	h.t.Helper()
	h.each(func(s *session) {
		if s.client.sock.RemoteAddr().String() == w.LocalAddr().String() {
			found = s
		}
	})
	if found == nil {
		w.t.Fatal("the session has ended")
	}
	return found
}
