package resp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// tells describes the frames of in: kind, length, null, line; or "malformed", or "(more)".
func tells(in string, strict bool) string {
	r := Replies{Strict: strict}
	var out []string
	for rest := []byte(in); len(rest) > 0; {
		n, done, err := r.Next(rest)
		switch {
		case errors.Is(err, ErrMalformed):
			return strings.Join(append(out, "malformed"), " ")
		case !done:
			return strings.Join(append(out, more), " ")
		}
		s := string(r.Kind())
		if r.Len() >= 0 {
			s += strconv.FormatInt(r.Len(), 10)
		}
		if r.Null() {
			s += "null"
		}
		out = append(out, s+string(r.Line()))
		rest = rest[n:]
	}
	return strings.Join(out, " ")
}

func TestRepliesFrameEveryType(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"+OK\r\n-ERR no\r\n+\r\n", "+OK -ERR no +"},
		{":1\r\n:-1\r\n:+7\r\n:12345678901234567890\r\n", ": : : :"},
		{"$3\r\nabc\r\n$0\r\n\r\n$-1\r\n$4\r\n\r\n\r\n\r\n", "$3 $0 $null $4"},
		{"*0\r\n*-1\r\n*2\r\n$1\r\na\r\n:1\r\n*1\r\n*1\r\n*0\r\n", "*0 *null *2 *1"},
		{"_\r\n#t\r\n#f\r\n,1.5e-9\r\n,-inf\r\n,nan\r\n(-123456789012345678901234567890\r\n", "_null # # , , , ("},
		{"!5\r\nERR x\r\n=7\r\ntxt:abc\r\n", "!5 =7"},
		{"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n~1\r\n#t\r\n>2\r\n+x\r\n+y\r\n%0\r\n~0\r\n", "%2 ~1 >2 %0 ~0"},
		{"*2\r\n$-1\r\n*-1\r\n*1\r\n_\r\n", "*2 *1"},
		{"$?\r\n;4\r\nword\r\n;2\r\n\r\n\r\n;0\r\n$?\r\n;0\r\n", "$ $"},
		{"*?\r\n:1\r\n$?\r\n;0\r\n.\r\n~?\r\n.\r\n%?\r\n+a\r\n*?\r\n.\r\n.\r\n>?\r\n+x\r\n.\r\n", "* ~ % >"},
		{"|1\r\n+ttl\r\n:3\r\n+OK\r\n", "+OK"},
		{"|0\r\n|1\r\n|0\r\n+a\r\n+b\r\n*2\r\n|1\r\n+c\r\n+d\r\n:1\r\n:2\r\n", "*2"},
		{"|1\r\n+ttl\r\n:3\r\n", more},
		{"*?\r\n:1\r\n|1\r\n+a\r\n+b\r\n:2\r\n.\r\n", "*"},
		{"+" + strings.Repeat("a", 100) + "\r\n", "+" + strings.Repeat("a", 64)},
		{"-" + strings.Repeat("a", 128<<10) + "\r\n", "-" + strings.Repeat("a", 64)},
		{"*999999999999999999\r\n", more},
		{"%999999999999999999\r\n", more},
		{"$999999999999999999\r\nabc", more},
	} {
		for _, strict := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.60q %v", test.in, strict), func(t *testing.T) {
				if got := tells(test.in, strict); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		}
	}
}

func TestRepliesRefuseMalformed(t *testing.T) {
	for _, in := range []string{
		"x\r\n", "OK\r\n", "\r\n", "\n", "\x00", ".\r\n", ";1\r\na\r\n", "HTTP/1.1 200 OK\r\n",
		"$-2\r\n", "$-10\r\n", "*-2\r\n", "%-1\r\n", "~-1\r\n", ">-1\r\n", "!-1\r\n", "=-1\r\n", "|-1\r\n", "!?\r\n", "=?\r\n", "|?\r\n",
		"$\r\n", "$x\r\n", "$+3\r\nabc\r\n", "$03\r\nabc\r\n", "$3\nabc\n", "$3 \r\n", "*1\n:1\n", "$9223372036854775807\r\n", "*9223372036854775807\r\n",
		"$1000000000000000000\r\n", "%9223372036854775807\r\n", "$3\r\nabcd\r\n", "$3\r\nabc\n", "$3\r\nabc\r\r",
		"$?\r\n:1\r\n", "$?\r\n.\r\n", "$?\r\n;-1\r\n", "$?\r\n;1\r\nab\r\n",
		"*1\r\n.\r\n", "%?\r\n+a\r\n.\r\n", "*?\r\n|1\r\n+a\r\n+b\r\n.\r\n", "*?\r\n.5\r\n", "|1\r\n+a\r\n+b\r\n.\r\n",
		"+" + strings.Repeat("a", 128<<10+1) + "\r\n", "+" + strings.Repeat("a", 128<<10+1), "(" + strings.Repeat("1", 200<<10),
		strings.Repeat("*1\r\n", 1025), strings.Repeat("|1\r\n", 1025), strings.Repeat("*?\r\n", 1025),
	} {
		for _, strict := range []bool{false, true} {
			if got := tells(in, strict); got != "malformed" {
				t.Errorf("%.60q strict %v: %s", in, strict, got)
			}
		}
	}
}

func TestStrictRefusesWhatBackendsNeverSend(t *testing.T) {
	for _, test := range []struct{ in, loose string }{
		{"+a\rb\r\n", "+a\rb"},
		{"-a\nb\r\n", "-a\nb"},
		{"+a\r\r\n", "+a\r"},
		{"+\n\r\n", "+\n"},
		{":1\n\r\n", ":"},
		{":\r\n", ":"},
		{":-\r\n", ":"},
		{":1-\r\n", ":"},
		{":1.5\r\n", ":"},
		{":123456789012345678901\r\n", ":"},
		{"(\r\n", "("},
		{"(" + strings.Repeat("1", 100) + "x\r\n", "("},
		{",\r\n", ","},
		{",abc\r\n", ","},
		{",infinity\r\n", ","},
		{"," + strings.Repeat("1", 65) + "\r\n", ","},
		{"#x\r\n", "#"},
		{"#\r\n", "#"},
		{"#tt\r\n", "#"},
		{"_x\r\n", "_null"},
		{"*1\r\n+a\rb\r\n", "*1"},
		{"*2\r\n>1\r\n+subscribe\r\n:1\r\n", "*2"}, // what Redis puts in the place of an element for SUBSCRIBE in EXEC
		{"*1\r\n>1\r\n+invalidate\r\n+OK\r\n", "*1 +OK"},
		{"%1\r\n+a\r\n*1\r\n>0\r\n", "%1"},
		{"*?\r\n>0\r\n.\r\n", "*"},
		{"|1\r\n+a\r\n>0\r\n+OK\r\n", "+OK"},
		{"|1\r\n+a\r\n+b\r\n>1\r\n+invalidate\r\n+OK\r\n", ">1 +OK"},
		{"|0\r\n>0\r\n", ">0"},
	} {
		if got := tells(test.in, false); got != test.loose {
			t.Errorf("%q: %q, want %q", test.in, got, test.loose)
		}
		if got := tells(test.in, true); got != "malformed" {
			t.Errorf("%q strict: %q", test.in, got)
		}
	}
}

func TestNestingUpToTheLimitGivesItsMemoryBack(t *testing.T) {
	var r Replies
	for range 2 {
		in := []byte(strings.Repeat("*1\r\n", 1024) + ":1\r\n")
		n, done, err := r.Next(in[:len(in)-4])
		if n != len(in)-4 || done || err != nil || r.outer == nil || r.Len() != 1 || !r.Open() {
			t.Fatalf("open: %d %v %v", n, done, err)
		}
		n, done, err = r.Next(in[len(in)-4:])
		if n != 4 || !done || err != nil || r.outer != nil || r.Open() || r.Kind() != '*' {
			t.Fatalf("done: %d %v %v", n, done, err)
		}
	}
}

func TestHeaderOfAnOpenReplyIsKnown(t *testing.T) {
	var r Replies
	if _, done, err := r.Next([]byte("|1\r\n+a\r\n")); done || err != nil || r.Kind() != 0 || !r.Open() {
		t.Fatalf("attribute: %v %v %q", done, err, r.Kind())
	}
	if _, done, err := r.Next([]byte("*3\r\n:1\r\n:2\r\n:3\r\n$1048577\r")); done || err != nil || r.Kind() != '$' || r.Len() != -1 {
		t.Fatalf("cut header: %v %v %q %d", done, err, r.Kind(), r.Len())
	}
	if _, done, err := r.Next([]byte("\nabc")); done || err != nil || r.Kind() != '$' || r.Len() != 1048577 {
		t.Fatalf("header: %v %v %q %d", done, err, r.Kind(), r.Len())
	}
}

// Found tells of error elements of a top-level array alone, wherever the input is cut.
func TestFoundLooksAtTheErrorsOfAnArrayAlone(t *testing.T) {
	for in, want := range map[string]bool{
		"*2\r\n+OK\r\n-READONLY no\r\n":                         true,
		"*2\r\n-READONLY no\r\n-ERR\r\n":                        true,
		"*?\r\n+OK\r\n-READONLY no\r\n.\r\n":                    true,
		"*2\r\n|1\r\n+a\r\n+b\r\n-READONLY no\r\n:1\r\n":        true,
		"|1\r\n+a\r\n+b\r\n*1\r\n-READONLY no\r\n":              true,
		"*2\r\n*1\r\n+OK\r\n-READONLY no\r\n":                   true,
		"-READONLY no\r\n":                                      false,
		"*1\r\n-ERR READONLY no\r\n":                            false,
		"*1\r\n+READONLY no\r\n":                                false,
		"*1\r\n$16\r\n-READONLY no !\r\n\r\n":                   false,
		"*1\r\n*1\r\n-READONLY no\r\n":                          false,
		"*2\r\n|1\r\n-READONLY no\r\n+b\r\n:1\r\n:2\r\n":        false,
		"|1\r\n+a\r\n*1\r\n-READONLY no\r\n*1\r\n:1\r\n":        false,
		"|1\r\n-READONLY no\r\n+a\r\n*0\r\n":                    false,
		">2\r\n+a\r\n-READONLY no\r\n":                          false,
		"%1\r\n+a\r\n-READONLY no\r\n":                          false,
		"*1\r\n-READONLY no\r\n*1\r\n+OK\r\n":                   false,
		"*1\r\n-READONLY no\r\n+OK\r\n":                         false,
		"*1\r\n-READONLY no\r\n:1\r\n":                          false,
		"*1\r\n-READONLY no\r\n*0\r\n":                          false,
		"*1\r\n-READONLY no\r\n*-1\r\n":                         false,
		"*1\r\n-READONLY" + strings.Repeat("x", 1000) + " \r\n": false,
		"*1\r\n-READONLY " + strings.Repeat("x", 1000) + "\r\n": true,
	} {
		for _, size := range []int{1, 2, 3, 7, len(in)} {
			r := Replies{Sought: func(line []byte) bool { return strings.HasPrefix(string(line), "READONLY ") }}
			for rest := []byte(in); len(rest) > 0; {
				n, _, err := r.Next(rest[:min(size, len(rest))])
				if err != nil {
					t.Fatalf("%q: %v", in, err)
				}
				rest = rest[n:]
			}
			if r.Open() || r.Found() != want {
				t.Errorf("%.60q in pieces of %d: found %v", in, size, r.Found())
			}
		}
	}
}

func TestMalformedStays(t *testing.T) {
	var r Replies
	if n, done, err := r.Next([]byte("+OK\r\n$x\r\n+OK\r\n")); n != 5 || !done || err != nil {
		t.Fatalf("first: %d %v %v", n, done, err)
	}
	for range 2 {
		if _, done, err := r.Next([]byte("$x\r\n+OK\r\n")); done || !errors.Is(err, ErrMalformed) {
			t.Fatalf("then: %v %v", done, err)
		}
	}
	if _, done, err := r.Next([]byte("+OK\r\n")); done || !errors.Is(err, ErrMalformed) {
		t.Fatalf("later: %v %v", done, err)
	}
}

func TestLongRepliesByteByByte(t *testing.T) {
	in := "*1025\r\n" + strings.Repeat("$1000\r\n"+strings.Repeat("\r", 1000)+"\r\n", 1024) + "+" + strings.Repeat("\r", 128<<10) + "\r\n"
	var r Replies
	one := make([]byte, 1)
	for i := range len(in) {
		one[0] = in[i] // the framer sees no byte twice
		n, done, err := r.Next(one)
		if n != 1 || err != nil || done != (i == len(in)-1) {
			t.Fatalf("byte %d of %d: %d %v %v", i, len(in), n, done, err)
		}
	}
}

const mixedReplies = "+OK\r\n:1\r\n$5\r\nvalue\r\n$-1\r\n*2\r\n$1\r\na\r\n:2\r\n%1\r\n+k\r\n,1.5\r\n-ERR no such thing\r\n_\r\n#t\r\n"

func TestRepliesAllocateNothing(t *testing.T) {
	in := []byte(strings.Repeat(mixedReplies, 50) + strings.Repeat("*1\r\n", 16) + ":1\r\n")
	for _, strict := range []bool{false, true} {
		r := Replies{Strict: strict}
		if n := testing.AllocsPerRun(100, func() {
			for rest := in; len(rest) > 0; {
				n, done, err := r.Next(rest)
				if !done || err != nil {
					t.Fatal(done, err)
				}
				rest = rest[n:]
			}
		}); n != 0 {
			t.Errorf("strict %v: %v allocations", strict, n)
		}
	}
	for _, in := range []string{"*999999999999999999\r\n", "$999999999999999999\r\nabc", "+a\rb\r\n", "$-2\r\n", "%999999999999999999\r\n+a"} {
		in := []byte(in)
		var r Replies
		if n := testing.AllocsPerRun(100, func() {
			r = Replies{}
			_, _, _ = r.Next(in)
		}); n != 0 {
			t.Errorf("%q: %v allocations", in, n)
		}
	}
}

func BenchmarkReplies(b *testing.B) {
	for _, test := range []struct{ name, unit string }{
		{"ok", "+OK\r\n"},
		{"integer", ":1234\r\n"},
		{"bulk32", "$32\r\n0123456789abcdef0123456789abcdef\r\n"},
		{"array", "*3\r\n$1\r\na\r\n$1\r\nb\r\n:1\r\n"},
		{"error", "-ERR wrong number of arguments for 'get' command\r\n"},
		{"mixed", mixedReplies},
	} {
		in := []byte(strings.Repeat(test.unit, (64<<10)/len(test.unit)))
		for _, strict := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/strict=%v", test.name, strict), func(b *testing.B) {
				r := Replies{Strict: strict}
				frames := 0
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					frames = 0
					for rest := in; len(rest) > 0; frames++ {
						n, done, err := r.Next(rest)
						if !done || err != nil {
							b.Fatal(err)
						}
						rest = rest[n:]
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*frames), "ns/frame")
			})
		}
	}
}
