package lane

import (
	"bytes"
	"fmt"
	"math"
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

// valueOf is what GET of a key is answered: no two keys have the same.
func valueOf(key string) string {
	return fmt.Sprintf("$%d\r\nvalue of %s\r\n", len("value of ")+len(key), key)
}

// pushWork is a lane with two sessions, and what its backend will say to them.
type pushWork struct {
	t        testing.TB
	lane     *Lane
	sessions [2]*rider
	want     [2][]byte
	stream   []byte
	whole    []int // where stream is between two frames
	pushes   int
}

func newPushWork(t testing.TB) *pushWork {
	l := newLane(t, netio.NewBuffers(0))
	l.set.key.RESP3 = true
	return newPushWorkOn(&pushWork{t: t, lane: l})
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
	if l.nonceAt = math.MaxInt64; nonce {
		l.nonceAt = math.MinInt64 / 2
	}
	s.tx = tx
	s.submit(l, []byte(strings.Repeat(cmd("GET", "k"), len(replies))), len(replies), l.set.all.c.Now())
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
		if !bytes.Equal(s.got, p.want[i]) || s.owed != 0 {
			p.t.Fatalf("%q: session %d got %q (%d owed), want %q", p.stream, i, s.got, s.owed, p.want[i])
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
	n := &pushWork{t: p.t, lane: newLaneOn(p.lane.set, p.lane.up)}
	for i := range n.sessions {
		n.sessions[i] = newRider(p.t, p.lane.Account().Buffers())
	}
	return n
}

// FuzzPushesOnALane makes work of script and cuts the stream at cuts: the low bits of a byte of script say what comes next.
func FuzzPushesOnALane(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0x80, 0x81, 2, 2, 0x83, 4, 2}, []byte{1, 2, 3, 5, 8, 13, 21})
	f.Add([]byte{2, 0x40, 2, 0xc1, 2, 3, 2}, []byte{1})
	f.Add([]byte{0x13, 0x92, 0x31, 2}, []byte{200, 1, 1, 1})
	seed := newPushWork(f)
	f.Fuzz(func(t *testing.T, script, cuts []byte) {
		p := newPushWorkOn(&pushWork{t: t, lane: seed.lane})
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
		p := newPushWorkOn(&pushWork{t: t, lane: seed.lane})
		p.lane.set = &Set{all: p.lane.set.all, key: Key{RESP3: resp3}}
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
			if !bytes.HasPrefix(most[i], s.got) {
				t.Fatalf("%q: session %d got %q, and %q was for it", p.stream, i, s.got, most[i])
			}
			if n := s.batch.Account.Held(); n != 0 {
				t.Fatalf("session %d holds %d bytes", i, n)
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
		if (err == errPush) != (size == backend.MaxPush) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
