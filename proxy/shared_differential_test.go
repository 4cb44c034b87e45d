package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The same as TestRepliesAreTheSameAsWithoutTheProxy for sessions that ride lanes, many at a time on the same ones: each
// has keys and a database of its own, so that what the others do changes none of its replies. Transcripts alternate
// between what rides lanes and what does not.
func TestRepliesOnLanesAreTheSameAsWithoutTheProxy(t *testing.T) {
	for _, sessions := range []int{1, 2, 50} {
		t.Run(fmt.Sprintf("%d sessions", sessions), func(t *testing.T) {
			args := []string{"--databases", "64", "--hash-max-listpack-value", "1000000000", "--hash-max-listpack-entries", "1000000",
				"--zset-max-listpack-value", "1000000000", "--zset-max-listpack-entries", "1000000", "--set-max-intset-entries", "1000000"}
			d := &laneDifferential{seed: testSeed(t), end: time.Now().Add(testTime(t, 4*time.Second)), direct: redisServer(t, args...)}
			d.proxied = start(t, redisServer(t, args...), func(c *Config) {
				share(c)
				// The default user wants no password, and takes any.
				c.Backend.Credentials = func() (string, string, error) { return "default", "any", nil }
				c.stayInterval = time.Millisecond
				c.Backend.Lanes = 1 + sessions/25
			})
			var all sync.WaitGroup
			for i := range sessions {
				all.Go(func() { d.session(t, i) }) // ends at the first difference or the time
			}
			all.Wait()
			lanes := uint64(0)
			st := d.proxied.Stats()
			for _, n := range st.CommandsLane {
				lanes += n
			}
			t.Logf("TEST_SEED=%d: %d transcripts, %d commands, %d of them on lanes; %d dials", d.seed, d.transcripts.Load(), d.commands.Load(), lanes, st.BackendDials)
			if lanes < uint64(d.commands.Load())/5 {
				t.Errorf("%d of %d commands rode lanes: that proves little", lanes, d.commands.Load())
			}
			if n := st.SessionsClosed[string(closeLane)] + st.SessionsClosed[string(closeBackendError)] + st.SessionsClosed[string(closeInternalError)]; n > 0 {
				t.Errorf("sessions ended for the backend: %v", st.SessionsClosed)
			}
		})
	}
}

type laneDifferential struct {
	seed                  uint64
	end                   time.Time
	direct                string
	proxied               *harness
	transcripts, commands atomic.Int64
}

// session plays one transcript after the other, in its database and with its keys.
func (d *laneDifferential) session(t *testing.T, i int) {
	for n := uint64(0); n == 0 || time.Now().Before(d.end) && !t.Failed(); n++ {
		g := newGenerator(d.seed+uint64(i)<<32, n)
		g.prefix, g.db = fmt.Sprintf("s%d:", i), i+1
		phases := g.phases()
		a := playPhases(dialPlain(t, d.direct), phases, g.Uint64())
		b := playPhases(d.proxied.dial(), phases, g.Uint64())
		d.transcripts.Add(1)
		for _, p := range phases {
			d.commands.Add(int64(len(p)))
		}
		if !bytes.Equal(a, b) {
			t.Errorf("TEST_SEED=%d, session %d, transcript %d:\n%s\n%s", d.seed, i, n, transcript{commands: flatten(phases)}, firstDifference(a, b))
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
func playPhases(w *wire, phases [][][]byte, cutSeed uint64) []byte {
	defer w.Close()
	r := rand.New(rand.NewPCG(cutSeed, 1))
	w.SetDeadline(time.Now().Add(20 * time.Second))
	var got []byte
	buf := make([]byte, 64<<10)
	for i, p := range phases {
		mark := fmt.Sprintf("the end of phase %d", i)
		b := append(bytes.Join(p, nil), cmd("ECHO", mark)...)
		last := []byte(fmt.Sprintf("$%d\r\n%s\r\n", len(mark), mark))
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
		}()
		for !bytes.HasSuffix(got, last) {
			n, err := w.r.Read(buf)
			got = append(got, buf[:n]...)
			if err != nil {
				w.Close()
				<-sent
				return connectionID.ReplaceAll(append(got, " (then "+err.Error()+")"...), []byte("$2\r\nid\r\n:0\r\n"))
			}
		}
		<-sent
		time.Sleep(2 * time.Millisecond) // beyond stayInterval: the session may leave its own connection
	}
	return connectionID.ReplaceAll(got, []byte("$2\r\nid\r\n:0\r\n"))
}

// What shows or changes more than the keys of one session, depends on the time, or is answered differently by design.
var notShared = regexp.MustCompile(`^(SWAPDB|FLUSHALL|MOVE|KEYS|AUTH|HELLO . AUTH|SELECT|P?SUBSCRIBE|SSUBSCRIBE|[PS]?UNSUBSCRIBE|S?PUBLISH|PUBSUB|` +
	`SCRIPT|EVALSHA|FUNCTION|FCALL|LATENCY|CONFIG|CLIENT TRACKING|CLIENT REPLY|CLIENT CACHING|RESET|ROLE|BL|BR|BZ|XREAD|WAIT|CLUSTER|.* 100000$)`)

// phases alternate between quiet commands and transactions, and what needs a connection of its own.
func (g *generator) phases() [][][]byte {
	quiet, others := laneTemplates()
	begin := [][]byte{[]byte(fmt.Sprintf("SELECT %d\r\nFLUSHDB\r\n", g.db))}
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

func cmdBytes(args ...string) []byte { return []byte(cmd(args...)) }

func (g *generator) appendQuiet(p [][]byte, quiet, others []string) [][]byte {
	any := func(of []string) []byte { return g.encode(g.fill(of[g.IntN(len(of))])) }
	switch g.IntN(12) {
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
	table, err := newCommandTable(nil)
	if err != nil {
		panic(err)
	}
	for _, template := range allTemplates {
		if notShared.MatchString(template) {
			continue
		}
		words := append(strings.Fields(template), "")
		c, _ := table.lookup([]byte(words[0]))
		switch c.classOf([]byte(words[1])) {
		case classQuiet, classPlain, classUnbounded, classUnboundedPlain:
			quiet = append(quiet, template)
		case classSticky:
		default:
			others = append(others, template)
		}
	}
	return quiet, others
})
