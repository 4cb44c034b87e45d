package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/command"
)

// The same as TestRepliesAreTheSameAsWithoutTheProxy for sessions that ride lanes, many at a time on the same ones: each
// has keys of its own, so that what the others do changes none of its replies. Transcripts alternate between what rides
// lanes and what does not. A session that is alone sees and changes the whole keyspace too.
func TestRepliesOnLanesAreTheSameAsWithoutTheProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sessions int
		rounds   int  // of each
		unproven bool // the proxy has no credentials
	}{{1, 30, false}, {2, 20, false}, {50, 3, false}, {10, 10, true}} {
		t.Run(fmt.Sprintf("%d sessions, unproven %v", tt.sessions, tt.unproven), func(t *testing.T) {
			t.Parallel()
			args := []string{"--databases", "64", "--hash-max-listpack-value", "1000000000", "--hash-max-listpack-entries", "1000000",
				"--zset-max-listpack-value", "1000000000", "--zset-max-listpack-entries", "1000000", "--set-max-intset-entries", "1000000"}
			d := &laneDifferential{
				seed: testSeed(t), rounds: tt.rounds, direct: redisServer(t, args...),
				databases: 1 + tt.sessions/25, alone: tt.sessions == 1,
			}
			d.proxied = start(t, redisServer(t, args...), func(c *Config) {
				swept(c)
				share(c)
				if !tt.unproven {
					// The default user wants no password, and takes any.
					c.Backend.Credentials = func() (string, string, error) { return "default", "any", nil }
				}
				c.stayInterval, c.unavailableTimeout = time.Millisecond, patience
				c.Backend.Lanes = 1 + tt.sessions/25
			})
			var all sync.WaitGroup
			for i := range tt.sessions {
				all.Go(func() { d.session(t, i) }) // ends at the first difference or with its rounds
			}
			all.Wait()
			lanes := uint64(0)
			st := d.proxied.Stats()
			for _, n := range st.CommandsLane {
				lanes += n
			}
			t.Logf("TEST_SEED=%d: %d transcripts, %d commands, %d of them on lanes, %d times more than one session in flight on one; %d dials",
				d.seed, d.transcripts.Load(), d.commands.Load(), lanes, d.together.Load(), st.BackendDials)
			if lanes < uint64(d.commands.Load())/8 {
				t.Errorf("%d of %d commands rode lanes: that proves little", lanes, d.commands.Load())
			}
			if tt.sessions == 50 && d.together.Load() == 0 {
				t.Error("no lane was ever seen with two sessions in flight: that proves little")
			}
			if n := st.SessionsClosed[string(closeLane)] + st.SessionsClosed[string(closeBackendError)] + st.SessionsClosed[string(closeInternalError)]; n > 0 {
				t.Errorf("sessions ended for the backend: %v", st.SessionsClosed)
			}
		})
	}
}

type laneDifferential struct {
	seed                            uint64
	rounds                          int // of each session
	direct                          string
	proxied                         *harness
	databases                       int // among which sessions are spread: those in one share lanes
	alone                           bool
	transcripts, commands, together atomic.Int64
}

// session plays one transcript after the other, with its keys.
func (d *laneDifferential) session(t *testing.T, i int) {
	for n := range rounds(t, d.rounds) {
		if t.Failed() {
			return
		}
		g := newGenerator(d.seed+uint64(i)<<32, uint64(n))
		g.prefix, g.db, g.alone = fmt.Sprintf("s%d:", i), 1+i%d.databases, d.alone
		phases, end := g.phases(), ending(g.IntN(int(endings)))
		if end == endHalfClose && slices.ContainsFunc(phases[len(phases)-1], mayBlock) {
			end = endEcho // an EOF ends what is blocked, by design
		}
		a := d.playPhases(dialPlain(t, d.direct), phases, end, g.Uint64(), false)
		b := d.playPhases(d.proxied.dial(), phases, end, g.Uint64(), true)
		d.transcripts.Add(1)
		for _, p := range phases {
			d.commands.Add(int64(len(p)))
		}
		if !bytes.Equal(a, b) {
			t.Errorf("TEST_SEED=%d, session %d, transcript %d:\n%s\n%s", d.seed, i, n, transcript{commands: flatten(phases), end: end}, firstDifference(a, b))
		}
	}
}

func flatten(phases [][][]byte) (all [][]byte) {
	for _, p := range phases {
		all = append(all, p...)
	}
	return all
}

// playPhases sends a phase, cut anywhere, when the last one is answered.
func (d *laneDifferential) playPhases(w *wire, phases [][][]byte, end ending, cutSeed uint64, proxied bool) (got []byte) {
	defer w.Close()
	defer func() { got = connectionID.ReplaceAll(got, []byte("$2\r\nid\r\n:0\r\n")) }()
	r := rand.New(rand.NewPCG(cutSeed, 1))
	w.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 64<<10)
	for i, p := range phases {
		mark := fmt.Sprintf("the end of phase %d", i)
		b := append(bytes.Join(p, nil), cmd("ECHO", mark)...)
		last := []byte(fmt.Sprintf("$%d\r\n%s\r\n", len(mark), mark))
		ends := i == len(phases)-1
		halfClose := ends && end == endHalfClose && proxied
		switch {
		case ends && end == endQuit:
			b = append(b, cmd("QUIT")...)
		case ends && end == endProtocolError:
			b = append(b, "*1\r\n$-5\r\n"...)
		}
		sent := make(chan struct{})
		go func() { // ends when all is sent or w closed
			defer close(sent)
			for len(b) > 0 {
				n := 1 + r.IntN(len(b))
				if r.IntN(3) == 0 {
					n = min(n, 1+r.IntN(200))
				}
				if _, err := w.Write(b[:n]); err != nil {
					return
				}
				b = b[n:]
			}
			if halfClose {
				w.Conn.(interface{ CloseWrite() error }).CloseWrite()
			}
		}()
		var err error
		for !bytes.HasSuffix(got, last) && err == nil {
			var n int
			n, err = w.r.Read(buf)
			got = append(got, buf[:n]...)
			if ends && err == nil && (end == endQuit || end == endProtocolError) {
				last = []byte("nothing: it ends")
			}
		}
		if err == nil && halfClose {
			var rest []byte
			rest, err = io.ReadAll(w.r)
			got = append(got, rest...)
		}
		if err != nil {
			w.Close()
		}
		<-sent
		switch {
		case err == io.EOF && ends && end == endProtocolError:
			// Redis and Dragonfly word it differently; dragontls answers in Dragonfly's words.
			return cutLastLine(got, map[bool]string{true: "-ERR Protocol error: -ERR Protocol error: ", false: "-ERR Protocol error: "}[proxied])
		case err == io.EOF && ends && end == endQuit:
			return got
		case err != nil:
			return append(got, " (then "+err.Error()+")"...)
		}
		if proxied {
			d.together.Add(int64(d.proxied.sharedNow()))
		}
		if proxied {
			d.proxied.ahead.Add(2 * time.Millisecond) // beyond stayInterval: the session may leave its own connection
		}
	}
	return got
}

// sharedNow counts the lanes on which more than one session is in flight.
func (h *harness) sharedNow() (n int) {
	for _, l := range h.openLanes() {
		if len(l.seats()) > 1 {
			n++
		}
	}
	return n
}

// What shows or changes more than the keys of one session.
var wholeKeyspace = regexp.MustCompile(`^(FLUSHDB|DBSIZE|SWAPDB|FLUSHALL|MOVE|KEYS|PUBSUB)`)

// What depends on the time, or is answered differently by design, or is played by stateful.
var notShared = regexp.MustCompile(`^(AUTH|HELLO . AUTH|SELECT|P?SUBSCRIBE|SSUBSCRIBE|[PS]?UNSUBSCRIBE|S?PUBLISH|` +
	`SCRIPT|EVALSHA|FUNCTION|FCALL|LATENCY|CONFIG|CLIENT TRACKING|CLIENT REPLY|CLIENT CACHING|RESET|ROLE|BL|BR|BZ|XREAD|WAIT|CLUSTER|.* 100000$)`)

// Behind these a phase's last reply is not that of its ECHO, or replies are not counted.
var hidesEcho = regexp.MustCompile(`(?i)^(MULTI|DFLY.*)$`)

// phases alternate between quiet commands and transactions, and what needs a connection of its own.
func (g *generator) phases() [][][]byte {
	quiet, others := laneTemplates()
	whole := []byte("FLUSHALL\r\n")
	if !g.alone {
		quiet, others = withoutWholeKeyspace(quiet), withoutWholeKeyspace(others)
		whole = g.deleteAll()
	}
	begin := [][]byte{[]byte(fmt.Sprintf("SELECT %d\r\n", g.db)), whole}
	if g.IntN(2) == 0 {
		begin = append(begin, cmdBytes("HELLO", "3"))
	}
	all := [][][]byte{begin}
	for range 1 + g.IntN(6) {
		var p [][]byte
		for range g.IntN(60) {
			p = g.appendQuiet(p, quiet, others)
		}
		all = append(all, p)
		if g.IntN(4) == 0 { // much of it makes the session keep its own connection
			all = append(all, g.stateful(others))
		}
	}
	return all
}

// deleteAll deletes every key that a transcript may have.
func (g *generator) deleteAll() []byte {
	args := []string{"DEL"}
	for _, k := range oddKeys {
		args = append(args, g.prefix+k)
	}
	for i := range 10 {
		args = append(args, g.prefix+"k"+strconv.Itoa(i))
	}
	return cmdBytes(args...)
}

func withoutWholeKeyspace(templates []string) []string {
	return slices.DeleteFunc(slices.Clone(templates), wholeKeyspace.MatchString)
}

func cmdBytes(args ...string) []byte { return []byte(cmd(args...)) }

func (g *generator) appendQuiet(p [][]byte, quiet, others []string) [][]byte {
	any := func(of []string) []byte { return g.encode(g.fill(of[g.IntN(len(of))])) }
	switch g.IntN(14) {
	case 2:
		if g.alone {
			if args := g.random(); g.IntN(3) == 0 && !hidesEcho.MatchString(args[0]) {
				return append(p, g.encode(args))
			}
		}
	case 0:
		p = append(p, g.encode([]string{"MULTI"}))
		for range g.IntN(5) {
			p = append(p, any(quiet))
		}
		if g.IntN(40) == 0 {
			p = append(p, any(others))
		}
		return append(p, g.encode([]string{g.pick("EXEC", "EXEC", "EXEC", "EXEC", "DISCARD")}))
	case 1:
		key := g.key()
		return append(p, g.encode([]string{"SET", key, g.value()}), g.encode([]string{"GET", key}))
	}
	return append(p, any(quiet))
}

// stateful changes the connection's state, or uses it in ways that lanes do not.
func (g *generator) stateful(others []string) (p [][]byte) {
	again := []byte(fmt.Sprintf("RESET\r\nSELECT %d\r\n", g.db))
	for range g.IntN(2) {
		p = append(p, g.encode(g.fill(others[g.IntN(len(others))])))
	}
	key, channel := g.key(), g.prefix+"c"
	switch g.IntN(9) {
	case 0:
		return append(p, again)
	case 1:
		return append(p, cmdBytes("WATCH", key), cmdBytes("MULTI"), g.encode(g.fill("SET %k %v")), cmdBytes("EXEC"))
	case 2:
		return append(p, cmdBytes("SUBSCRIBE", channel), cmdBytes("UNSUBSCRIBE", channel), again)
	case 3:
		return append(p, g.encode([]string{"SET", key, g.big()}), cmdBytes("GET", key))
	case 4:
		return append(p, cmdBytes("DEL", key), cmdBytes("RPUSH", key, "x"), cmdBytes("BLPOP", key, "0.01"), cmdBytes("BLPOP", key, "0.001"))
	case 5:
		return append(p, cmdBytes("HELLO", g.pick("2", "3")))
	case 6:
		return append(p, cmdBytes("CLIENT", "SETNAME", g.pick("a", "b")), cmdBytes("EVAL", "return redis.call('GET', KEYS[1])", "1", key))
	case 7:
		return append(p, cmdBytes("MULTI"), cmdBytes("HELLO", g.pick("2", "3")), cmdBytes("EXEC"))
	}
	return p
}

var laneTemplates = sync.OnceValues(func() (quiet, others []string) {
	table, err := command.NewTable(nil)
	if err != nil {
		panic(err)
	}
	for _, template := range allTemplates {
		if notShared.MatchString(template) {
			continue
		}
		words := append(strings.Fields(template), "")
		c, _, _ := table.Lookup([]byte(words[0]))
		switch c.Class([]byte(words[1])) {
		case command.Quiet, command.Plain, command.Unbounded, command.UnboundedPlain:
			quiet = append(quiet, template)
		case command.Sticky:
		default:
			others = append(others, template)
		}
	}
	return quiet, others
})

// A whole transaction and the beginning of another one in one batch that goes over the own connection: the end of the
// first is not that of the second.
func TestEndOfAWholeTransactionIsNotThatOfTheNext(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) {
		share(c)
		c.Backend.Credentials = func() (string, string, error) { return "default", "any", nil }
		c.stayInterval, c.unavailableTimeout = time.Millisecond, patience
	})
	w := h.dial()
	w.send(cmd("MULTI") + cmd("SET", "k", "1") + cmd("EXEC") + cmd("MULTI"))
	w.want("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n+OK\r\n")
	h.pass(5 * time.Millisecond)
	w.send(cmd("GET", "k"))
	w.want("+QUEUED\r\n")
	w.do("*1\r\n$1\r\n1\r\n", "EXEC")
	w.do("$1\r\n1\r\n", "GET", "k")
}

// What was prepared for the own connection never goes to a lane, even if that connection ends before it is written.
func TestBatchPreparedForTheOwnConnectionStaysWithIt(t *testing.T) {
	s := &session{server: bareServer()}
	s.proven.Store(true)
	s.client.pend, s.client.hasTx, s.client.route = []slot{{n: 2}, {n: 3, tx: true}, {n: 1}}, true, routeLane
	if got := s.wantedRoute(); got != routeLane {
		t.Fatalf("got route %d", got)
	}
	s.closeTransactions()
	if got := s.wantedRoute(); got != routeOwn {
		t.Errorf("got route %d, want that of the own connection", got)
	}
	if p := s.client.pend; len(p) != 4 || p[1].n != 2 || p[2].kind != slotNoted || p[2].n != 1 {
		t.Errorf("got %+v", p)
	}
}
