package resp

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tidwall/redcon"
)

// Small enough that a fuzzer meets them.
var fuzzLimits = Limits{MaxBulk: 200, MaxArgs: 8, MaxInline: 100}

var commandSeeds = []string{
	"*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n", "*+1\r\n$04\r\nPING\r\n",
	"PING\r\n*1\r\n$4\r\nPING\r\n", "  get \t k\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "set k \"a b\"\r\nPING\r\n",
	"*0\r\n", "*-1\r\n", "*1\r\n$-1\r\n", "*1\r\n$-4\r\n", "*1\r\n$x\r\n", "*1\n$4\nPING\n", "*9223372036854775807\r\n",
	"*1\r\n$9223372036854775807\r\n", "*1\r\n$4\r\nPINGxx", "*1\r\n+PING\r\n", "\x00\x00\r\n", "*000000000000000000000000000001\r\n",
	"*1\r\n$0\r\n\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0000000000000000000000000000014\r\n", "post x\r\n",
	"*2\r\n$+3\r\nGET\r\n$001\r\nk\r\n a b c d e f g h i j\r\n",
}

var replySeeds = []string{
	"+OK\r\n", "-ERR x\r\n:1\r\n", "$3\r\nabc\r\n$-1\r\n*-1\r\n_\r\n", "*2\r\n$1\r\na\r\n*0\r\n", "#t\r\n,1.5\r\n(123\r\n,inf\r\n",
	"!3\r\nERR\r\n=7\r\ntxt:abc\r\n", "%1\r\n+k\r\n+v\r\n~2\r\n:1\r\n:2\r\n>1\r\n+x\r\n", "$?\r\n;4\r\nword\r\n;0\r\n",
	"*?\r\n:1\r\n.\r\n%?\r\n+a\r\n:1\r\n.\r\n~?\r\n.\r\n>?\r\n.\r\n", "|1\r\n+k\r\n+v\r\n*1\r\n|1\r\n+k\r\n+v\r\n:1\r\n",
	"%?\r\n+a\r\n.\r\n", "*?\r\n|1\r\n+a\r\n+b\r\n.\r\n", "+a\rb\r\n", "+a\nb\r\n", "$-2\r\n", "*01\r\n", "$999999999999999999\r\n",
	"$9999999999999999999\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "|0\r\n+x\r\n", ":\r\n", ":+1\r\n", "#x\r\n", "_x\r\n", ".\r\n", ";1\r\n",
}

// A step is all that a framer says of one command or reply.
type step struct {
	n                    int
	args                 int
	name, sub, canonical string
	isCanonical          bool
	err                  error
}

// framed runs Next over data as it arrives in pieces, until data is used up or a fatal error comes.
func framed(data []byte, pieces func() int) (steps []step) {
	c := Commands{Limits: fuzzLimits}
	for start, have := 0, 0; ; {
		buf := data[start:have:have]
		n, complete, err := c.Next(buf)
		var protocol *ProtocolError
		if errors.As(err, &protocol) && protocol.Fatal {
			return append(steps, step{err: err})
		}
		switch {
		case err != nil:
			steps = append(steps, step{n: n, err: err})
			start += n
		case complete:
			steps = append(steps, step{
				n: n, args: c.Args(), name: fmt.Sprintf("%q", c.Name(buf)), sub: fmt.Sprintf("%q", c.Sub(buf)),
				canonical: string(c.AppendCanonical(nil, buf[:n])), isCanonical: c.Canonical(),
			})
			start += n
		case have == len(data):
			return steps
		default:
			have = min(have+pieces(), len(data))
		}
	}
}

func atOnce(data []byte) func() int { return func() int { return max(len(data), 1) } }

// inPieces takes sizes from cuts, again and again.
func inPieces(cuts []byte) func() int {
	i := 0
	return func() int {
		if len(cuts) == 0 {
			return 1
		}
		i++
		return int(cuts[(i-1)%len(cuts)])%40 + 1
	}
}

// streamed runs Stream and Skip over the command at the start of data; Next saw the held bytes before.
func streamed(t *testing.T, data []byte, held int, pieces func() int) (out []byte, n int, done bool, err error) {
	c := Commands{Limits: fuzzLimits}
	skipper := Commands{Limits: fuzzLimits}
	_, _, _ = c.Next(data[:held])
	_, _, _ = skipper.Next(data[:held])
	for have := held; ; have = min(have+pieces(), len(data)) {
		var size int
		out, size, done, err = c.Stream(out, data[n:have])
		skipped, skipDone, skipErr := skipper.Skip(data[n:have])
		if skipped != size || skipDone != done || skipErr != err {
			t.Fatalf("Skip = %d %v %v, Stream = %d %v %v", skipped, skipDone, skipErr, size, done, err)
		}
		n += size
		if !done && err == nil && have-n >= 64 && data[0] == '*' {
			t.Fatalf("%d bytes left unconsumed", have-n)
		}
		if done || err != nil || have == len(data) {
			return out, n, done, err
		}
	}
}

func FuzzCommandsCut(f *testing.F) {
	for _, s := range commandSeeds {
		f.Add([]byte(s), []byte{0})
		f.Add([]byte(s), []byte{3, 1, 7})
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		want := framed(data, atOnce(data))
		got := framed(data, inPieces(cuts))
		if !slices.Equal(got, want) {
			t.Fatalf("cut: %+v\nuncut: %+v", got, want)
		}
		held := 0
		if len(cuts) > 0 {
			held = int(cuts[0])
		}
		for _, s := range want {
			out, n, done, err := streamed(t, data, min(held, len(data)), inPieces(cuts))
			if err != s.err || err == nil && !done || s.n > 0 && n != s.n || string(out) != s.canonical && s.n > 0 {
				t.Fatalf("Stream = %q %d %v %v, Next: %+v", out, n, done, err, s)
			}
			data = data[s.n:]
		}
	})
}

func FuzzCommandsDifferential(f *testing.F) {
	for _, s := range commandSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		steps := framed(data, atOnce(data))
		for _, got := range steps {
			want := refNext(string(data), fuzzLimits)
			if want.err != nil {
				if got.err != error(want.err) || got.n != want.n && !want.err.Fatal {
					t.Fatalf("%q: got %+v, want %+v", data, got, want)
				}
				data = data[got.n:]
				if want.err.Fatal {
					return
				}
				continue
			}
			if got.err != nil || want.verdict != whole || got.n != want.n || got.args != len(want.args) || got.isCanonical != want.canonical {
				t.Fatalf("%q: got %+v, want %+v", data, got, want)
			}
			checkArgs(t, got, want.args)
			if got.isCanonical && got.canonical != string(data[:got.n]) {
				t.Fatalf("canonical frame changed: %q to %q", data[:got.n], got.canonical)
			}
			data = data[got.n:]
		}
		if want := refNext(string(data), fuzzLimits); want.verdict != cut {
			t.Fatalf("%q: nothing framed, want %+v", data, want)
		}
	})
}

// checkArgs parses canonical output by redcon and by ourselves.
func checkArgs(t *testing.T, got step, want []string) {
	t.Helper()
	if len(want) == 0 {
		if got.canonical != "" {
			t.Fatalf("an empty line gives %q", got.canonical)
		}
		return
	}
	frame := []byte(got.canonical)
	complete, args, kind, left, err := redcon.ReadNextCommand(frame, nil)
	if !complete || kind != redcon.Redis || len(left) != 0 || err != nil || !equalArgs(args, want) {
		t.Fatalf("redcon reads %q as %q (%v), want %q", frame, args, err, want)
	}
	if args := SplitArgs(frame, nil); !equalArgs(args, want) {
		t.Fatalf("SplitArgs(%q) = %q, want %q", frame, args, want)
	}
	c := Commands{Limits: fuzzLimits}
	n, complete, err := c.Next(frame)
	if n != len(frame) || !complete || err != nil || !c.Canonical() || c.Args() != len(want) {
		t.Fatalf("Next(%q) = %d %v %v", frame, n, complete, err)
	}
	sub := "\"\""
	if len(want) > 1 {
		sub = fmt.Sprintf("%q", want[1])
	}
	if name := fmt.Sprintf("%q", want[0]); got.name != name || got.sub != sub {
		t.Fatalf("name %s sub %s, want %q", got.name, got.sub, want)
	}
}

func equalArgs(got [][]byte, want []string) bool {
	return slices.EqualFunc(got, want, func(a []byte, b string) bool { return string(a) == b })
}

// A reply is all that Replies says of one frame.
type reply struct {
	n      int
	kind   byte
	null   bool
	length int64
	line   string
	bad    bool
}

func replied(data []byte, strict bool, pieces func() int) (out []reply) {
	r := Replies{Strict: strict}
	size := 0
	for at := 0; at < len(data); {
		in := data[at:min(at+pieces(), len(data))]
		for {
			n, done, err := r.Next(in)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					panic(err)
				}
				return append(out, reply{bad: true})
			}
			if !done && n != len(in) {
				panic("not done, yet not all consumed")
			}
			at, size, in = at+n, size+n, in[n:]
			if r.Open() != (!done && size > 0) {
				panic("Open is wrong")
			}
			if !done {
				break
			}
			out = append(out, reply{n: size, kind: r.Kind(), null: r.Null(), length: r.Len(), line: string(r.Line())})
			size = 0
		}
	}
	return out
}

func FuzzRepliesCut(f *testing.F) {
	for _, s := range replySeeds {
		f.Add([]byte(s), []byte{0}, false)
		f.Add([]byte(s), []byte{2, 0, 9}, true)
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte, strict bool) {
		want := replied(data, strict, atOnce(data))
		if got := replied(data, strict, inPieces(cuts)); !slices.Equal(got, want) {
			t.Fatalf("cut: %+v\nuncut: %+v", got, want)
		}
	})
}

func FuzzRepliesDifferential(f *testing.F) {
	for _, s := range replySeeds {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, strict bool) {
		rest := data
		for _, got := range replied(data, strict, atOnce(data)) {
			want := refReplies{strict}.next(string(rest))
			if got.bad {
				if want.verdict != broken {
					t.Fatalf("%q: malformed, want %+v", rest, want)
				}
				return
			}
			if (got != reply{want.n, want.kind, want.null, want.length, want.line, false}) {
				t.Fatalf("%q: got %+v, want %+v", rest, got, want)
			}
			rest = rest[got.n:]
		}
		if len(rest) == 0 {
			return
		}
		if want := (refReplies{strict}).next(string(rest)); want.verdict != cut {
			t.Fatalf("%q: no frame, want %+v", rest, want)
		}
	})
}
