package proxy

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// redirects is a client that has Redis push to connections of others.
type redirects struct {
	*wire
	self string // its id
}

func newRedirects(h *harness, cn string) *redirects {
	r := &redirects{wire: h.dialAs(cn)}
	r.send(cmd("CLIENT", "ID"))
	r.self = strings.TrimSpace(strings.TrimPrefix(r.line(), ":"))
	return r
}

var resp3ID = regexp.MustCompile(`(?m)^id=(\d+) .* resp=3`)

// targets are the RESP3 connections of others.
func (r *redirects) targets() (ids []string) {
	r.t.Helper()
	r.send(cmd("CLIENT", "LIST"))
	var n int
	if _, err := fmt.Sscanf(r.line(), "$%d", &n); err != nil {
		r.t.Fatal(err)
	}
	list := make([]byte, n+2)
	if _, err := io.ReadFull(r.r, list); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range resp3ID.FindAllSubmatch(list, -1) {
		if id := string(m[1]); id != r.self {
			ids = append(ids, id)
		}
	}
	return ids
}

// track has Redis push to the connection with this id what is written to keys with a prefix. false: it is gone.
func (r *redirects) track(id string) bool {
	r.t.Helper()
	r.do("+OK\r\n", "CLIENT", "TRACKING", "OFF")
	r.send(cmd("CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST"))
	return r.line() == "+OK\r\n"
}

// skipPushes drops the pushes before the next reply; it returns how many there were.
func (w *wire) skipPushes() (n int) {
	for {
		first, err := w.r.Peek(1)
		if err != nil || first[0] != '>' {
			return n
		}
		for range 6 { // the lines of an invalidation of one key
			if _, err := w.r.ReadString('\n'); err != nil {
				return n
			}
		}
		n++
	}
}

// A client that has Redis push to all connections that it finds closes nobody, and no other client sees a byte of that on
// a lane. On a connection of its own a session gets the pushes between its replies, as on a direct connection.
func TestRedirectedTrackingDisturbsNoOtherIdentity(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, redisServer(t, "--requirepass", "secret"), func(c *Config) {
			c.Backend.Credentials = credentials("", "secret")
		})
		const honest, rounds = 4, 60
		var wg sync.WaitGroup
		var over atomic.Bool
		var pushed, replies atomic.Int64
		defer func() { over.Store(true); wg.Wait() }()
		var all []*wire
		for i := range honest {
			w := h.dialAs("honest")
			w.send(cmd("HELLO", "3"))
			for w.line() != "*0\r\n" { // the last line: no modules
			}
			w.do("+OK\r\n", "SET", fmt.Sprint("h", i), fmt.Sprint("v", i))
			all = append(all, w)
		}
		if m.shared {
			h.pass(stayInterval)
			for _, w := range all {
				h.closeOwnOf(w)
			}
		}
		for i, w := range all {
			wg.Go(func() {
				want := bulk(fmt.Sprint("v", i))
				got := make([]byte, len(want))
				w.SetReadDeadline(time.Time{}) // the end of the test closes it
				for !over.Load() {
					io.WriteString(w, cmd("GET", fmt.Sprint("h", i)))
					if !m.shared {
						pushed.Add(int64(w.skipPushes()))
					}
					if _, err := io.ReadFull(w.r, got); err != nil || string(got) != want {
						t.Errorf("got %q (%v), want %q", got, err, want)
						return
					}
					replies.Add(1)
				}
			})
		}
		eventually(t, "all are at work", func() bool { return replies.Load() > 100 })
		r := newRedirects(h, "attacker")
		hits := 0
		for i := range rounds {
			for _, id := range r.targets() {
				if r.track(id) {
					r.do("+OK\r\n", "SET", "k", fmt.Sprint(i))
					hits++
				}
			}
			if i%10 == 9 && m.shared { // each time lanes are replaced, and the attacker finds the next ones
				h.sweepUnused()
			}
		}
		if hits < rounds {
			t.Errorf("only %d redirections", hits)
		}
		// A lane for each of the honest clients whenever the test has called the sweeper, and own connections.
		if n, most := h.Stats().BackendDials, 20+honest*(uint64(rounds/10)+1); m.shared && n > most {
			t.Errorf("%d connections were dialled", n)
		}
		for reason, n := range h.Stats().SessionsClosed {
			t.Errorf("%d sessions closed: %s", n, reason)
		}
		e := h.Stats().BackendErrors
		if e["lane"] > 0 || e["lost"] > 0 || m.shared && e["push"] < 2 {
			t.Errorf("errors %v", e)
		}
		if !m.shared {
			eventually(t, "a push got through", func() bool { return pushed.Load() > 0 || t.Failed() })
		}
	})
}

// Where a client tracks a key of others and redirects that to a lane, Redis 7.0 writes the push into the middle of the array
// that EXEC answers, and does not count it: the array's last element looks like the next reply. Nobody may get it.
func TestPushInsideATransactionReachesNobody(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t, "--requirepass", "secret"), func(c *Config) {
		share(c)
		c.Backend.Credentials = credentials("", "secret")
		c.Backend.Lanes = 1
	})
	r := newRedirects(h, "attacker")
	r.do("+OK\r\n", "SET", "value", "right")
	const gets = 300
	want := strings.Repeat(bulk("right"), gets)
	for range 10 {
		var all [2]*wire
		for i := range all {
			w := h.dial()
			w.send(cmd("HELLO", "3"))
			for w.line() != "*0\r\n" {
			}
			all[i] = w
		}
		h.pass(stayInterval)
		for _, w := range all {
			w.do(bulk("right"), "GET", "value") // on a lane from here on
			h.closeOwnOf(w)
		}
		var ids []string
		eventually(t, "the lane alone speaks RESP3", func() bool { ids = r.targets(); return len(ids) == 1 })
		r.do("+OK\r\n", "CLIENT", "TRACKING", "OFF")
		r.do("+OK\r\n", "CLIENT", "TRACKING", "ON", "REDIRECT", ids[0])
		r.send(cmd("GET", "tracked"))
		if r.line() != "$-1\r\n" {
			r.line()
		}
		all[0].send(cmd("MULTI") + cmd("SET", "tracked", "x") + cmd("EXEC"))
		all[1].send(strings.Repeat(cmd("GET", "value"), gets))
		if got := all[0].readUpTo(len("+OK\r\n+QUEUED\r\n*1\r\n")); !strings.HasPrefix("+OK\r\n+QUEUED\r\n*1\r\n", got) {
			t.Fatalf("who wrote got %q", got)
		}
		if got := all[1].readUpTo(len(want)); !strings.HasPrefix(want, strings.TrimSuffix(got, sayUnavailable)) {
			at := 0
			for at < len(got) && got[at] == want[at] {
				at++
			}
			t.Fatalf("who read got %d right bytes and then %.200q", at, got[at:])
		}
	}
}

// readUpTo reads n bytes, or what comes before the end of the connection or an error of ours.
func (w *wire) readUpTo(n int) string {
	w.t.Helper()
	var b strings.Builder
	for b.Len() < n {
		c, err := w.r.ReadByte()
		if err != nil {
			break
		}
		b.WriteByte(c)
		if c == '\n' && strings.HasSuffix(b.String(), sayUnavailable) {
			break
		}
	}
	return b.String()
}
