package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// invalidate is the push that Redis sends where CLIENT TRACKING of another connection is redirected to.
func invalidate(key string) string {
	return fmt.Sprintf(">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n", len(key), key)
}

// pushWork is a lane with two sessions, and what its backend will say to them.
type pushWork struct {
	t        testing.TB
	lane     *lane
	sessions [2]*session
	want     [2][]byte
	stream   []byte
	whole    []int // where stream is between two frames
	pushes   int
}

func newPushWork(t testing.TB) *pushWork {
	s, l := onALane(t)
	l.set.key.resp3 = true
	other := &session{server: s.server, stripe: s.stripe}
	other.queue.init(other.server.buffers.NewAccount())
	other.queue.out, other.queue.turn = &outbox{account: other.account(), most: s.server.c.SessionBuffer}, true
	return &pushWork{t: t, lane: l, sessions: [2]*session{s, other}}
}

// say adds a frame to the stream.
func (p *pushWork) say(frame string) {
	p.whole = append(p.whole, len(p.stream))
	p.stream = append(p.stream, frame...)
}

func (p *pushWork) push(key string) {
	p.pushes++
	p.say(invalidate(key))
}

// ask submits commands of a session, with a nonce after them if so wanted.
func (p *pushWork) ask(who int, replies []string, tx, nonce bool) {
	p.t.Helper()
	s, l := p.sessions[who], p.lane
	c := &s.client
	n := len(replies)
	c.out, c.pend, c.replies, c.frames = []byte(strings.Repeat(cmd("GET", "k"), n)), append(c.pend[:0], slot{n: n, tx: tx}), n, n
	l.nonces(nonce)
	if got := l.submit(s, s.server.now()); got != submitted {
		p.t.Fatalf("submission %v", got)
	}
	for _, r := range replies {
		p.want[who] = append(p.want[who], r...)
		p.say(r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed, l.unnonced = l.given, 0 // as if it was written
	if nonce {
		p.say(string(backend.AppendNonceReply(nil, l.slots.At(l.slots.Len()-1).nonce)))
	}
}

// deliver hands the stream to the lane, cut at these places.
func (p *pushWork) deliver(cuts ...int) {
	p.t.Helper()
	from := 0
	for _, to := range append(cuts, len(p.stream)) {
		if err := p.lane.deliver(bytes.Clone(p.stream[from:to])); err != nil {
			p.t.Fatalf("%q, cut at %d: %v", p.stream, cuts, err)
		}
		from = to
	}
}

// check compares what each session got with what it asked for.
func (p *pushWork) check() {
	p.t.Helper()
	for i, s := range p.sessions {
		var got []byte
		q := &s.queue
		for b, ok := q.out.take(); ok; b, ok = q.out.take() {
			got = append(got, b.bytes()...)
			b.free(s.account())
		}
		if !bytes.Equal(got, p.want[i]) || q.owed != 0 {
			p.t.Fatalf("%q: session %d got %q (%d owed), want %q", p.stream, i, got, q.owed, p.want[i])
		}
	}
	if p.lane.commands != 0 || p.lane.slots.Len() != 0 || p.lane.pushed.Load() != (p.pushes > 0) {
		p.t.Fatalf("%d commands, %d slots, pushed %v", p.lane.commands, p.lane.slots.Len(), p.lane.pushed.Load())
	}
}

// typical is pushes in every kind of place: before and after the replies of a pipeline, of a transaction and a nonce.
func (p *pushWork) typical() {
	p.push("first")
	p.ask(0, []string{valueOf("a"), "-ERR no\r\n"}, false, true)
	p.push("after a nonce")
	p.ask(1, []string{"+OK\r\n", "+QUEUED\r\n", "*1\r\n" + valueOf("b")}, true, true)
	p.ask(0, []string{"%1\r\n+k\r\n*2\r\n:1\r\n_\r\n"}, false, false)
	p.push("")
	p.push(strings.Repeat("long", 20))
	p.ask(1, []string{"$-1\r\n"}, false, true)
	p.push("last")
}

// Whole pushes between replies, wherever the reads cut them, leave every reply with the session that asked for it.
func TestPushesBetweenRepliesAreDroppedWhereverTheyAreCut(t *testing.T) {
	t.Parallel()
	p := newPushWork(t)
	p.typical()
	for at := 1; at < len(p.stream); at++ {
		p := newPushWorkOn(p)
		p.typical()
		p.deliver(at)
		p.check()
	}
	p = newPushWorkOn(p)
	p.typical()
	bytewise := make([]int, 0, len(p.stream))
	for at := 1; at < len(p.stream); at++ {
		bytewise = append(bytewise, at)
	}
	p.deliver(bytewise...)
	p.check()
}

// A push between two replies of one run.
func TestPushesWithinAPipelineAreDropped(t *testing.T) {
	t.Parallel()
	seed := newPushWork(t)
	replies := []string{valueOf("a"), valueOf("b"), ":1\r\n"}
	stream := valueOf("a") + invalidate("x") + valueOf("b") + invalidate("y") + invalidate("z") + ":1\r\n"
	for at := 1; at < len(stream); at++ {
		p := newPushWorkOn(seed)
		p.ask(0, replies, false, false)
		p.stream, p.pushes = []byte(stream), 3
		p.deliver(at)
		p.check()
	}
}

// newPushWorkOn has fresh sessions and a fresh lane over the socket of another one.
func newPushWorkOn(p *pushWork) *pushWork {
	server := p.sessions[0].server
	n := &pushWork{t: p.t}
	for i := range n.sessions {
		s := &session{server: server, stripe: &server.stripes[0]}
		s.queue.init(server.buffers.NewAccount())
		s.queue.out, s.queue.turn = &outbox{account: s.account(), most: server.c.SessionBuffer}, true
		n.sessions[i] = s
	}
	n.lane = &lane{set: p.lane.set, up: p.lane.up, wake: make(chan struct{}, 1)}
	n.lane.in.replies.Strict = true
	return n
}

// FuzzPushesOnALane makes work of script and cuts the stream at cuts: the low bits of a byte of script say what comes next.
func FuzzPushesOnALane(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0x80, 0x81, 2, 2, 0x83, 4, 2}, []byte{1, 2, 3, 5, 8, 13, 21})
	f.Add([]byte{2, 0x40, 2, 0xc1, 2, 3, 2}, []byte{1})
	f.Add([]byte{0x13, 0x92, 0x31, 2}, []byte{200, 1, 1, 1})
	seed := newPushWork(f)
	f.Fuzz(func(t *testing.T, script, cuts []byte) {
		p := newPushWorkOn(seed)
		p.t = t
		for i, b := range script[:min(len(script), 100)] {
			key := fmt.Sprint("key", i)
			switch who := int(b >> 2 & 1); b & 3 {
			case 0, 1:
				p.ask(who, slices.Repeat([]string{valueOf(key)}, 1+int(b>>3&7)), false, b >= 0x80)
			case 2:
				p.push(key)
			case 3:
				p.ask(who, []string{"+OK\r\n", "+QUEUED\r\n", "*1\r\n" + valueOf(key)}, true, b >= 0x80)
			}
		}
		var at []int
		for _, c := range cuts {
			if last := append([]int{0}, at...); last[len(last)-1]+int(c) < len(p.stream) && c > 0 {
				at = append(at, last[len(last)-1]+int(c))
			}
		}
		p.deliver(at...)
		p.check()
	})
}

// hostileFrames are what a backend may say: replies of every kind, attributes, streamed values, pushes whole, inside replies
// and between a reply and its attributes, and what is no frame.
var hostileFrames = []string{
	"+OK\r\n", ":1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*-1\r\n", "_\r\n", "#t\r\n", ",1.5\r\n", "(12\r\n", "-ERR no\r\n", "=5\r\ntxt:a\r\n", "!3\r\nERR\r\n",
	"*2\r\n:1\r\n:2\r\n", "*0\r\n", "%1\r\n+a\r\n+b\r\n", "~1\r\n+a\r\n", "*1\r\n*1\r\n*1\r\n",
	"$?\r\n;3\r\nabc\r\n;0\r\n", "$?\r\n;3\r\n", "*?\r\n:1\r\n.\r\n", "*?\r\n:1\r\n", "%?\r\n+a\r\n+b\r\n.\r\n", "~?\r\n.\r\n", ".\r\n", ";0\r\n",
	"|1\r\n+a\r\n+b\r\n", "|0\r\n", "|1\r\n+a\r\n", "*1\r\n|1\r\n+a\r\n+b\r\n:1\r\n",
	">0\r\n", ">1\r\n+x\r\n", ">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n", ">3\r\n+x\r\n", ">?\r\n+x\r\n.\r\n", ">?\r\n+x\r\n", ">-1\r\n", ">01\r\n", ">1\r\n|1\r\n+a\r\n+b\r\n+x\r\n",
	">1\r\n$?\r\n;1\r\na\r\n;0\r\n", ">999999999999999999\r\n", ">", "\r\n", "*2\r\n>1\r\n+x\r\n", "what\r\n",
	"-ERR Protocol error: x\r\n", "-ERR Internal Error\r\n", "-BUSY x\r\n", "-EXECABORT Transaction discarded because of previous errors.\r\n",
}

// owed is what each session may get at most of the stream: the n-th frame that is no push belongs to whoever asked for the
// n-th reply, up to the byte that shows that it is no reply.
func (p *pushWork) owed(asked []int) (most [2][]byte) {
	r := resp.Replies{Strict: true}
	for rest := p.stream; len(rest) > 0 && len(asked) > 0; {
		n, done, err := r.Next(rest)
		frame := rest[:n]
		wrong := err != nil || rest[0] != '>' && r.Kind() == '>'
		if wrong { // a part may be out before that is known
			frame = rest[:wrongByte(rest)]
		}
		if rest[0] != '>' {
			if who := asked[0]; who >= 0 {
				most[who] = append(most[who], frame...)
			}
			asked = asked[1:]
		}
		if wrong || !done {
			break
		}
		rest = rest[n:]
	}
	return most
}

// wrongByte is the place of the first byte at which the framer knows that stream begins with no reply.
func wrongByte(stream []byte) (at int) {
	r := resp.Replies{Strict: true}
	for ; ; at++ {
		if _, _, err := r.Next(stream[at : at+1]); err != nil || r.Kind() == '>' {
			return at
		}
	}
}

// FuzzHostileBackendOnALane has a backend answer with whatever it likes, cut anywhere. Either the lane closes, or each reply
// reaches whoever asked for it; no session ever gets a byte of a push, or of what another one asked for.
func FuzzHostileBackendOnALane(f *testing.F) {
	for i := range hostileFrames {
		f.Add([]byte{0, 5, 0x86, 1}, []byte{0, byte(i), 2, byte(i), 30, 1}, []byte{3, 4, 5}, true)
		f.Add([]byte{4, 4}, []byte{25, byte(i), 1}, []byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, true)
	}
	f.Add([]byte{0, 5}, []byte{0, 30}, []byte{}, false)
	seed := newPushWork(f)
	f.Fuzz(func(t *testing.T, script, says, cuts []byte, resp3 bool) {
		p := newPushWorkOn(seed)
		p.t = t
		p.lane.set = &laneSet{server: p.lane.set.server, key: laneKey{resp3: resp3}}
		var asked []int
		for _, b := range script[:min(len(script), 20)] {
			who, n, nonce := int(b>>2&1), 1+int(b>>3&3), b >= 0x80
			p.ask(who, make([]string, n), b&3 == 3, nonce)
			asked = append(asked, slices.Repeat([]int{who}, n)...)
			if nonce {
				asked = append(asked, -1)
			}
		}
		p.stream = nil
		for _, b := range says[:min(len(says), 50)] {
			p.stream = append(p.stream, hostileFrames[int(b)%len(hostileFrames)]...)
		}
		most := p.owed(asked)
		for rest := p.stream; len(rest) > 0; {
			n := len(rest)
			if len(cuts) > 0 {
				n, cuts = min(n, 1+int(cuts[0]%40)), cuts[1:]
			}
			if p.lane.deliver(bytes.Clone(rest[:n])) != nil {
				break
			}
			rest = rest[n:]
		}
		for i, s := range p.sessions {
			var got []byte
			for b, ok := s.queue.out.take(); ok; b, ok = s.queue.out.take() {
				got = append(got, b.bytes()...)
				b.free(s.account())
			}
			if !bytes.HasPrefix(most[i], got) {
				t.Fatalf("%q: session %d got %q, and %q was for it", p.stream, i, got, most[i])
			}
			if s.account().Held() != int64(slotsCost(s.queue.slots.Cap())) {
				t.Fatalf("session %d holds %d bytes", i, s.account().Held())
			}
		}
	})
}

// A push above backend.MaxPush closes the lane: its end may be far away, and everybody on the lane waits for it.
func TestHugePushEndsALane(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small enough": backend.MaxPush - 100, "too big": backend.MaxPush} {
		p := newPushWork(t)
		if err := p.lane.deliver([]byte(fmt.Sprintf(">1\r\n$%d\r\n", size))); err != nil {
			t.Fatal(err)
		}
		var err error
		chunk := bytes.Repeat([]byte("x"), netio.ChunkSize)
		for left := size; left > 0 && err == nil; left -= len(chunk) {
			chunk = chunk[:min(len(chunk), left)]
			err = p.lane.deliver(chunk)
		}
		if err == nil {
			err = p.lane.deliver([]byte("\r\n"))
		}
		if (err == errLanePush) != (size == backend.MaxPush) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A lane on which pushes come serves on until its successor is there; nobody is closed, and no session sees a push.
func TestLaneWithPushesIsReplacedAndClosesNobody(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	a, other := h.dial(), h.dial()
	for _, w := range []*wire{a, other} {
		w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
	}
	h.pass(int64(stayInterval))
	a.get("0")
	other.get("1")
	const rounds = 5
	b.on(func(c *laneConn, args []string) (string, bool) {
		if c.lane && args[0] == "GET" {
			return invalidate("x") + c.answer(args) + invalidate("y"), true
		}
		return "", false
	})
	for i := range rounds {
		l := h.lane()
		l.nonces(i%2 == 0)
		held := b.hold("a")
		a.send(cmd("GET", "a") + cmd("GET", "behind it"))
		<-held.reached
		other.send(cmd("GET", "b"))
		eventually(t, "all are in flight and written", func() bool { return l.written() == 3 })
		held.say(invalidate("x") + valueOf("a"))
		a.want(valueOf("a") + valueOf("behind it"))
		other.want(valueOf("b"))
		if l.stateNow() != laneOpen || b.lanes() != i+1 {
			t.Fatalf("state %v, %d lanes were opened, before the sweeper came", l.stateNow(), b.lanes())
		}
		h.sweepUnused()
		<-l.closed
		eventually(t, "its successor is there", func() bool { return len(h.openLanes()) == 1 })
		other.get("on the next one")
	}
	h.wantOnLanes("GET", 2+4*rounds)
	if b.lanes() != 1+rounds || len(h.Stats().SessionsClosed) > 0 || h.Stats().BackendErrors["lane"] > 0 || h.Stats().BackendErrors["lost"] > 0 {
		t.Errorf("%d lanes, sessions closed %v, errors %v", b.lanes(), h.Stats().SessionsClosed, h.Stats().BackendErrors)
	}
	if got := h.Stats().BackendErrors["push"]; got < rounds {
		t.Errorf("%d lanes with pushes were counted", got)
	}
}

// Where no successor can be had, the lane stays.
func TestLaneWithPushesServesOnWithoutASuccessor(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
	h.pass(int64(stayInterval))
	w.get("0")
	l := h.lane()
	held := b.hold("a")
	w.send(cmd("GET", "a"))
	<-held.reached
	held.say(invalidate("x") + valueOf("a"))
	w.want(valueOf("a"))
	b.onAccept(func(c *laneConn) { c.reset() })
	dials := h.Stats().BackendDials
	h.sweepUnused()
	eventually(t, "a successor was dialled in vain", func() bool {
		l.set.mu.Lock()
		defer l.set.mu.Unlock()
		return h.Stats().BackendDials > dials && !l.set.dialing
	})
	w.get("1")
	if h.lane() != l || len(h.Stats().SessionsClosed) > 0 {
		t.Errorf("another lane, or sessions closed: %v", h.Stats().SessionsClosed)
	}
	b.onAccept(nil)
	h.pass(laneRetry)
	h.sweepUnused()
	<-l.closed
	w.get("2")
}

// Pushes that come while a lane or an own connection is set up are dropped, also one whose rest comes after all replies.
func TestPushesInASetUpAreDropped(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"HELLO", "SELECT", "MULTI", "EXEC", "ECHO"} {
		for name, how := range map[string]func(c *laneConn, reply string) string{
			"before": func(_ *laneConn, reply string) string { return invalidate("x") + reply },
			"after":  func(_ *laneConn, reply string) string { return reply + invalidate("x") + invalidate("y") },
			"cut": func(c *laneConn, reply string) string {
				push := invalidate("x")
				c.w.WriteString(reply + push[:15])
				c.w.Flush()
				return push[15:]
			},
		} {
			t.Run(at+" "+name, func(t *testing.T) {
				t.Parallel()
				b := newLaneBackend(t)
				h := b.start(nil)
				w := h.dial()
				w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
				w.do("+OK\r\n", "SELECT", "7")
				h.pass(int64(stayInterval))
				h.closeOwnOf(w)
				b.on(func(c *laneConn, args []string) (string, bool) {
					if args[0] == at && len(c.commands()) <= 6 {
						return how(c, c.answer(args)), true
					}
					return "", false
				})
				w.do(bulk("7 3"), "HGET", "h", "f")
				w.do(bulk("info"), "INFO")
				w.do(bulk("7 3"), "HGET", "h", "f")
				h.wantOnLanes("HGET", 1)
				if h.lane().pushed.Load() != true {
					t.Error("the lane is not to be replaced")
				}
				if n := len(h.Stats().SessionsClosed); n != 0 || h.Stats().BackendErrors["no_lanes"] != 0 {
					t.Errorf("sessions closed: %v, errors %v", h.Stats().SessionsClosed, h.Stats().BackendErrors)
				}
			})
		}
	}
}

// closeOwnOf closes the session's own connection, as the sweeper would after a while.
func (h *harness) closeOwnOf(w *wire) {
	h.t.Helper()
	s := h.sessionOf(w)
	eventually(h.t, "its own connection is closed", func() bool { s.closeOwn(h.now()); return !s.hasOwn() })
}
