package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// forgeable are the commands with which Dragonfly quotes an argument as it is in an error: %p is where that argument stands.
// What a lane may carry as long as nothing in it breaks a line is marked.
var forgeable = []struct {
	command string
	plain   bool
}{
	{"EXPIRE k 10 %p", true}, {"PEXPIRE k 10 %p", true}, {"EXPIREAT k 10 %p", true}, {"PEXPIREAT k 10 NX %p", true}, {"expire k 10 %p", true},
	{"ZRANGE z 0 -1 %p", true}, {"ZREVRANGE z 0 -1 %p", true}, {"ZRANGEBYSCORE z 0 1 %p", true}, {"ZREVRANGEBYSCORE z 1 0 %p", true},
	{"ZRANGEBYLEX z - + %p", true}, {"ZREVRANGEBYLEX z + - %p", true}, {"ZRANGESTORE d z 0 -1 %p", true}, {"ZRANDMEMBER z 1 %p", true},
	{"GEOADD g 999 38 %p", true}, {"GEOADD g %p 38 m", true}, {"geoadd g 1 %p m", true}, {"DELEX k %p v", true},
	{"XPENDING s %p", true}, {"XPENDING %p g", true}, {"XREADGROUP GROUP %p c STREAMS s >", false}, {"XREADGROUP GROUP g c STREAMS %p >", false},
	{"XAUTOCLAIM %p g c 0 0", true}, {"XAUTOCLAIM s %p c 0 0", true}, {"XGROUP SETID s %p 0", true}, {"XGROUP CREATECONSUMER s %p c", true},
	{"XGROUP DELCONSUMER s %p c", true}, {"XINFO %p", false}, {"XINFO CONSUMERS s %p", true},
	{"%p", false}, {"nosuch%p", false}, {"GET\x00%p", false}, {"CLIENT %p", false}, {"CONFIG %p", false}, {"SCRIPT %p", false}, {"FUNCTION %p", false},
	{"MEMORY %p", false}, {"PUBSUB %p", false}, {"SLOWLOG %p", false}, {"LATENCY %p", false}, {"DEBUG %p", false}, {"JSON.DEBUG %p", false},
	{"CLUSTER %p", false}, {"SAVE %p", false}, {"BGSAVE %p", false}, {"CLIENT LIST TYPE %p", false}, {"CONFIG SET %p 1", false}, {"HELLO %p", false},
	{"EVAL %p 0", false}, {"EVAL return(redis.call('EXPIRE','k','1',ARGV[1])) 0 %p", false}, {"EVALSHA %p 0", false}, {"EVAL_RO error(ARGV[1]) 0 %p", false},
	{"FT.SEARCH %p q", false}, {"FT.INFO %p", false}, {"CLIENT KILL %p", false}, {"CLIENT SETNAME %p", false}, {"CLIENT REPLY %p", false},
	{"SELECT %p", false}, {"OBJECT %p", false}, {"COMMAND %p", false}, {"SORT k %p", false}, {"CLIENT SETINFO LIB-NAME %p", false},
	{"ACL SETUSER u %p", false}, {"ACL CAT %p", false}, {"ACL DRYRUN u %p", false}, {"ACL %p", false}, {"ACL\x00%p", false}, {"REPLTAKEOVER 1 %p", false},
	{"EXPIRE\x00%p", false}, {"get\x00k%p", false}, {"MULTI\x00%p", false}, {"RESET\x00%p", false}, {"QUIT\x00%p", false},
	{"HELLO\x00%p", false}, {"SELECT\x00%p", false}, {"WATCH\x00%p", false}, {"EVAL\x00%p", false}, {"EXEC %p", false}, {"MULTI %p", false}, {"DISCARD %p", false}, {"RESET %p", false},
}

// forged are replies that an argument may try to make.
var forged = []string{
	"x\r\n+OK", "x\r\n$5\r\nhello", "x\r\n:1", "x\r\n*1\r\n$1\r\na", "x\r\n-ERR y", "x\r\n>2\r\n+a\r\n+b", "x\r\n$-1", "x\r\n*0\r\n*0\r\n*0", "x\r\n%1\r\n+a\r\n+b",
	"x\r\n+QUEUED\r\n*0", "x\r\n-EXECABORT Transaction discarded because of previous errors", "x\r\n-ERR Protocol error: no", "x\r\n$100\r\nthe rest", "x\ny", "x\ry", "\r\n", "x\r\n", "x\r\n+INJ\r\n$3\r\nabc\r\n:4",
	strings.Repeat("x", 63<<10) + "\r\n+OK", strings.Repeat("x", 70<<10) + "\r\n+OK\r\n:1", "x\r\n" + strings.Repeat("+OK\r\n", 3000) + "+OK", // held, streamed, many
	"x\r\n+RESET", "x\r\n%1\r\n$5\r\nproto\r\n:3", "x\r\n$16\r\n0123456789abcdef",
	"option", // and one that forges nothing
}

// quotes answers as Dragonfly does: what stands at a forgeable place comes back as it is.
func quotes(c *laneConn, args []string) (string, bool) {
	for _, f := range forgeable {
		at := quotedAt(f.command, args)
		if at < 0 {
			continue
		}
		text := "-ERR Unsupported option or name: " + args[at] + "\r\n"
		if c.multi && (at == 0 || len(args) == 2) {
			c.multi = false // MULTI's error state: what follows runs at once
			return text, true
		}
		if c.multi {
			c.queued = append(c.queued, text)
			return "+QUEUED\r\n", true
		}
		return text, true
	}
	return "", false
}

// quotedAt is the place of %p where args are an instance of the command, else -1.
func quotedAt(command string, args []string) int {
	words := strings.Split(command, " ")
	if len(words) != len(args) {
		return -1
	}
	at := -1
	for i, w := range words {
		switch before, _, quoted := strings.Cut(w, "%p"); {
		case quoted && strings.HasPrefix(args[i], before):
			at = i
		case !strings.EqualFold(w, args[i]):
			return -1
		}
	}
	if at == 0 && len(words) == 1 && !strings.ContainsAny(args[0], "\r\n") {
		return -1 // PING and its like
	}
	if words[0] == "HELLO" && (args[1] == "2" || args[1] == "3") {
		return -1
	}
	return at
}

// Whatever an argument makes of a reply, nobody else sees a byte of it: victims of the same and of another identity ask
// for values of their own on the lanes meanwhile.
func TestForgedRepliesReachNobodyElse(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	b := newLaneBackend(t)
	b.on(quotes)
	h := b.start(func(c *Config) {
		swept(c)
		c.Recheck, c.stayInterval = (&judgement{}).recheck, time.Millisecond
		c.eofTimeout = 100 * time.Millisecond // a reply that was forged may leave an attacker to wait for one that never comes
	})
	t.Logf("TEST_SEED=%d", seed)
	end := make(chan struct{})
	var served, ended atomic.Int64
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() { // ends with end
			for n := 0; !closed(end); n++ {
				victim(t, h, fmt.Sprintf("victim %d %d", i, n), []string{"attacker", "other"}[i%2], i >= 4, end, &served)
				ended.Add(1)
			}
		})
	}
	r := rand.New(rand.NewPCG(seed, 3))
	attempts := 0
	for i := range rounds(t, 5*len(forgeable)) {
		attack(h, r, i%len(forgeable))
		attempts++
		b.forget()
	}
	close(end)
	all.Wait()
	st := h.Stats()
	t.Logf("%d attempts; victims were served %d times and connected %d times; %v on lanes", attempts, served.Load(), ended.Load(), st.CommandsLane)
	if served.Load() < int64(attempts) || st.CommandsLane["EXPIRE"] < uint64(attempts/8) || st.CommandsLane["GET"] < uint64(served.Load())/2 {
		t.Errorf("that proves little")
	}
	if n := st.SessionsClosed[string(closeLane)]; n > 0 {
		t.Errorf("%d sessions of lanes were closed: what forges a reply rode a lane", n)
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// victim asks for values that nobody else asks for, until it is closed or the end.
func victim(t *testing.T, h *harness, name, identity string, resp3 bool, end chan struct{}, served *atomic.Int64) {
	w := h.dialAs(identity)
	defer w.Close()
	greeting := ""
	if resp3 {
		io.WriteString(w, cmd("HELLO", "3"))
		greeting = "%1\r\n$5\r\nproto\r\n:3\r\n"
	}
	for n := 0; !closed(end); n++ {
		var ask, want strings.Builder
		if n == 0 {
			want.WriteString(greeting)
		}
		for i := range 1 + n%5 {
			key := fmt.Sprintf("%s %d %d", name, n, i)
			ask.WriteString(cmd("GET", key))
			want.WriteString(valueOf(key))
		}
		if n%7 == 0 {
			key := fmt.Sprintf("%s %d", name, n)
			ask.WriteString(cmd("MULTI") + cmd("GET", key) + cmd("EXEC"))
			want.WriteString("+OK\r\n+QUEUED\r\n*1\r\n" + valueOf(key))
		}
		if _, err := io.WriteString(w, ask.String()); err != nil {
			return
		}
		w.SetReadDeadline(time.Now().Add(patience))
		got := make([]byte, want.Len())
		k, err := io.ReadFull(w.r, got)
		if !bytes.HasPrefix([]byte(want.String()), got[:k]) {
			t.Errorf("%s got %q, want %q", name, got[:k], want.String())
			return
		}
		if err != nil {
			return
		}
		served.Add(1)
	}
}

// attack sends a few forgeable commands, one of them the given one, in one of the ways in which commands come.
func attack(h *harness, r *rand.Rand, given int) {
	w := h.dialAs("attacker")
	defer w.Close()
	if r.IntN(2) == 0 {
		io.WriteString(w, cmd("HELLO", "3"))
	}
	var b strings.Builder
	way := r.IntN(5)
	if way == 1 {
		b.WriteString(cmd("MULTI"))
	}
	if way == 2 {
		b.WriteString(cmd("MULTI") + cmd("nosuch"+forged[r.IntN(len(forged))]))
	}
	harmless := r.IntN(3) == 0 // rides a lane, then
	for n := range 1 + r.IntN(4) {
		f := forgeable[r.IntN(len(forgeable))]
		if n == 0 {
			f = forgeable[given]
		}
		p := forged[r.IntN(len(forged))]
		if harmless {
			f, p = forgeable[0], "option"
		}
		args := strings.Split(f.command, " ")
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "%p", p)
		}
		b.WriteString(cmd(args...))
		if way == 3 {
			b.WriteString(cmd("GET", "mine"))
		}
	}
	if way == 1 || way == 2 {
		b.WriteString(cmd("EXEC"))
	}
	if way == 4 {
		b.WriteString(cmd("RESET") + cmd("GET", "mine"))
	}
	const last = "behind all that"
	io.WriteString(w, b.String()+cmd("ECHO", last))
	// It leaves at once or after the first byte of an answer, with replies owed to it; or when it has all that it gets.
	switch r.IntN(6) {
	case 0:
		io.WriteString(w, cmd("GET", "mine"))
	case 1:
		w.SetReadDeadline(time.Now().Add(patience))
		w.r.ReadByte()
		io.WriteString(w, cmd("GET", "mine"))
	default:
		w.endWrites()
		w.until(last)
	}
}

// What may ride a lane does, as long as nothing in it breaks a line; and nothing that does.
func TestForgeableCommandsRideLanesOnlyWithoutLineBreaks(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	b.on(quotes)
	h := b.start(func(c *Config) { c.stayInterval = time.Nanosecond })
	for _, f := range forgeable {
		for _, p := range []string{"option", "x\r\n+OK", "x\ny", "x\ry"} {
			args := strings.Split(strings.ReplaceAll(f.command, "%p", p), " ")
			w := h.dial()
			w.do(valueOf("k"), "GET", "k")
			w.send(cmd(args...))
			w.SetReadDeadline(time.Now().Add(patience))
			if _, err := w.r.ReadByte(); err != nil && !strings.Contains(f.command, "REPLY") {
				t.Errorf("%q: %v", args, err)
			}
			w.Close()
			rode := b.lanesThatGot(args)
			if want := f.plain && p == "option"; rode != want {
				t.Errorf("%q rode a lane: %v, want %v", args, rode, want)
			}
		}
	}
}

func (b *laneBackend) lanesThatGot(args []string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		for _, got := range c.got {
			if c.lane && strings.Join(got, " ") == strings.Join(args, " ") {
				return true
			}
		}
	}
	return false
}

// A backend without a place says so to whom it does not serve, before anything was asked: who rides lanes that are open
// sees nothing of it, and the others errors of their own.
func TestFullBackendSaysSoToNobodyElse(t *testing.T) {
	t.Parallel()
	for _, proven := range []bool{true, false} {
		t.Run(fmt.Sprintf("credentials %v", proven), func(t *testing.T) {
			t.Parallel()
			o := proxytest.Options{}
			const full = "-ERR max number of clients reached\r\n" // as without the proxy
			if proven {
				o.RequirePass = "secret"
			}
			d := dragonfly(t, o)
			operator := dialPlain(t, d.Addr())
			if proven {
				operator.do("+OK\r\n", "AUTH", "secret")
			}
			h := start(t, d.Addr(), func(c *Config) {
				share(c)
				c.Recheck, c.stayInterval, c.Backend.Lanes = (&judgement{}).recheck, time.Millisecond, 1
				if proven {
					c.Backend.Credentials = credentials("", "secret")
				}
			})
			victims := []*wire{h.dialAs("a"), h.dialAs("a"), h.dialAs("b")}
			ask := func() {
				for i, w := range victims {
					value := fmt.Sprintf("%d", i)
					w.do("+OK\r\n", "SET", "k"+value, value)
					w.do("$1\r\n"+value+"\r\n", "GET", "k"+value)
				}
			}
			ask()
			eventually(t, "victims ride lanes", func() bool { ask(); return h.Stats().CommandsLane["GET"] > 10 })
			operator.do("+OK\r\n", "CONFIG", "SET", "maxclients", "1") // whoever leaves makes no room
			before := h.Stats().CommandsLane["GET"]
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					w := h.dialAs([]string{"a", "c"}[i%2])
					defer w.Close()
					command := []string{cmd("EVAL", "return 1", "0"), cmd("GET", "k")}[i/2]
					io.WriteString(w, command)
					w.SetReadDeadline(time.Now().Add(patience))
					got, _ := w.r.ReadString('\n')
					ok := got == full
					if i == 2 && proven {
						ok = got == "$-1\r\n" // it rides a's lane
					}
					if !ok {
						t.Errorf("%q got %q", command, got)
					}
				})
			}
			done := make(chan struct{})
			go func() { // ends with all
				all.Wait()
				close(done)
			}()
			for !closed(done) {
				ask()
			}
			if n := h.Stats().CommandsLane["GET"]; n < before+3 {
				t.Errorf("%d GETs rode lanes meanwhile", n-before)
			}
		})
	}
}
