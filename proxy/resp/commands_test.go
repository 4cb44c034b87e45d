package resp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const (
	multibulk = "-ERR Protocol error: -ERR Protocol error: invalid multibulk length\r\n"
	bulkLen   = "-ERR Protocol error: -ERR Protocol error: invalid bulk length\r\n"
	parse     = "-ERR Protocol error: -ERR Protocol error: parse error\r\n"
	tooBig    = "-ERR Protocol error: too big inline request\r\n"
	http      = "-ERR dragontls: this is not an HTTP server\r\n"
	quotes    = "-ERR dragontls: quotes and backslashes in an inline command are not supported, send a RESP array\r\n"
	more      = "(more)"
)

// says frames all of in and describes it: "[a b]" for arguments, an error's reply line, "(more)" for an incomplete rest.
func says(in string, l Limits) string {
	c := Commands{Limits: l}
	var out strings.Builder
	for buf := []byte(in); len(buf) > 0; {
		n, complete, err := c.Next(buf)
		var protocol *ProtocolError
		switch {
		case errors.As(err, &protocol):
			out.Write(protocol.AppendReply(nil))
			if protocol.Fatal {
				return out.String()
			}
		case !complete:
			return out.String() + more
		default:
			fmt.Fprintf(&out, "%q", SplitArgs(c.AppendCanonical(nil, buf[:n]), nil))
		}
		buf = buf[n:]
	}
	return out.String()
}

// What Dragonfly v1.40.1 answered to each, byte for byte; where it ran a command, its arguments.
func TestCommandsFrameAsDragonfly(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"PING\r\n", `["PING"]`},
		{"PING\n", `["PING"]`},
		{"ping hello\r\n", `["ping" "hello"]`},
		{"\r\n", `[]`},
		{"\r\nPING\r\n", `[]["PING"]`},
		{"\n", `[]`},
		{"   \r\n", `[]`},
		{"  PING  \r\n", `["PING"]`},
		{"FOO bar\r\n", `["FOO" "bar"]`},
		{"*0\r\n", multibulk},
		{"*-1\r\n", multibulk},
		{"*-2\r\n", multibulk},
		{"*1\r\n$-1\r\n", bulkLen},
		{"*1\r\n$-2\r\n", multibulk},
		{"*1\r\n$-5\r\n", multibulk},
		{"*2\r\n$3\r\nGET\r\n$-9223372036854775808\r\n", multibulk},
		{"*1\r\n$0\r\n\r\n", `[""]`},
		{"*2\r\n$3\r\nGET\r\n$-1\r\n", bulkLen},
		{"*1\r\n$4\r\nPINGxx", parse},
		{"*1\r\n$4\r\nPINGxx\r\n", parse},
		{"*1\r\n$3\r\nPING\r\n", parse},
		{"*1\r\n:4\r\n", bulkLen},
		{"*1\r\n+PING\r\n", bulkLen},
		{"*x\r\n", multibulk},
		{"*\r\n", multibulk},
		{"*1\r\n$x\r\n", multibulk},
		{"*1\r\n$\r\n", multibulk},
		{"*1\r\nPING\r\n", bulkLen},
		{"*1\n$4\nPING\n", multibulk},
		{"*65536\r\n", more},
		{"*65536\r\n*1\r\n$4\r\nPING\r\n", bulkLen},
		{"*65537\r\n", multibulk},
		{"*70000\r\n", multibulk},
		{"*1048577\r\n", multibulk},
		{"*99999999999999999999\r\n", multibulk},
		{"*1\r\n$536870912\r\n", more},
		{"*1\r\n$536870913\r\n", bulkLen}, // ours: above the default MaxBulk
		{"*1\r\n$99999999999999999999\r\n", multibulk},
		{"*+1\r\n$4\r\nPING\r\n", `["PING"]`},
		{"*01\r\n$04\r\nPING\r\n", `["PING"]`},
		{"$4\r\nPING\r\n", `["$4"]["PING"]`},
		{"+PING\r\n", `["+PING"]`},
		{":1\r\n", `[":1"]`},
		{"-ERR x\r\n", `["-ERR" "x"]`},
		{"%1\r\n$1\r\na\r\n$1\r\nb\r\n", `["%1"]["$1"]["a"]["$1"]["b"]`},
		{"~1\r\n$4\r\nPING\r\n", `["~1"]["$4"]["PING"]`},
		{">1\r\n$4\r\nPING\r\n", `[">1"]["$4"]["PING"]`},
		{"_\r\n", `["_"]`},
		{"\x00\x00\r\n", `[]`},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", more},
		{"\xff\xfe\xfd\r\n", `["\xff\xfe\xfd"]`},
		{"HEAD / HTTP/1.0\r\n\r\n", http}, // ours; Dragonfly answers GET and POST with its status page
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", http},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", http},
		{"get k\r\n", `["get" "k"]`},
	} {
		t.Run(strconv.Quote(test.in), func(t *testing.T) {
			if got := says(test.in, Limits{}); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// Each crashed redcon v1.6.4, kept it busy or was read differently from what Dragonfly reads.
func TestCommandsWithstandWhatRedconDoesNot(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"R1 bulk length overflows", "*1\r\n$9223372036854775807\r\n", bulkLen},
		{"R2 negative bulk", "*1\r\n$-100\r\n", multibulk},
		{"R2 Tile38 overflow", "$9223372036854775807 \r\n", `["$9223372036854775807"]`},
		{"R2 reply overflow", "$9223372036854775807\r\n", `["$9223372036854775807"]`},
		{"R4 huge count", "*300000000\r\n", multibulk},
		{"R4 endless count", "*9223372036854775807\r\n", multibulk},
		{"R5 16 KiB of words", strings.Repeat("a ", 8<<10) + "\r\n", "[" + strings.TrimSpace(strings.Repeat(`"a" `, 8<<10)) + "]"},
		{"R16 minus zero", "*1\r\n$-0\r\n\r\n", bulkLen},
		{"R16 leading zeros", "*1\r\n$004\r\nPING\r\n", `["PING"]`},
		{"R16 plus", "*1\r\n$+4\r\nPING\r\n", `["PING"]`},
		{"R16 no arguments", "*0\r\n", multibulk},
		{"R16 null array", "*-1\r\n", multibulk},
		{"R16 hex escape", `set k "\x41"` + "\r\n", quotes},
		{"R16 TAB separates", "set\tk\tv\r\n", `["set" "k" "v"]`},
		{"R16 empty length", "*1\r\n$\r\n\r\n", multibulk},
		{"R16 wrapped length", "*1\r\n$18446744073709551620\r\nPING\r\n", multibulk},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := says(test.in, Limits{}); got != test.want {
				t.Errorf("got %.80s, want %.80s", got, test.want)
			}
		})
	}
}

func TestCommandsKeepLimits(t *testing.T) {
	l := Limits{MaxBulk: 4, MaxArgs: 2, MaxInline: 16}
	for _, test := range []struct{ in, want string }{
		{"*1\r\n$4\r\nPING\r\n", `["PING"]`},
		{"*1\r\n$5\r\n", bulkLen},
		{"*2\r\n", more},
		{"*3\r\n", multibulk},
		{"a b\r\n", `["a" "b"]`},
		{"a b c\r\n", multibulk},
		{"a b c \"\r\n", multibulk},
		{strings.Repeat("a", 16) + "\n", `["aaaaaaaaaaaaaaaa"]`},
		{strings.Repeat("a", 16), more},
		{strings.Repeat("a", 17) + "\n", tooBig},
		{strings.Repeat("a", 17), tooBig},
		{strings.Repeat(" ", 17), tooBig},
		{"*" + strings.Repeat("0", 28) + "1\r\n", more},
		{"*" + strings.Repeat("0", 29) + "1\r\n", multibulk},
		{"*" + strings.Repeat("0", 31), multibulk}, // no end in sight
		{"*" + strings.Repeat("0", 30), more},
		{"*1\r\n$" + strings.Repeat("0", 31), multibulk},
		{"*1\r\n$" + strings.Repeat("0", 30), more},
	} {
		t.Run(strconv.Quote(test.in), func(t *testing.T) {
			if got := says(test.in, l); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	huge := Limits{MaxBulk: 1 << 62}
	if got := says("*1\r\n$9999999999\r\n", huge); got != more {
		t.Errorf("ten digits: %s", got)
	}
	if got := says("*1\r\n$10000000000\r\n", huge); got != bulkLen {
		t.Errorf("eleven digits: %s", got)
	}
}

func TestInline(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"a\x00b\r\n", `["a\x00b"]`},
		{" \t\x00\r\r\n", `[]`},
		{"a\rb\r\n", `["a\rb"]`},
		{"set k it's\r\nPING\r\n", quotes + `["PING"]`},
		{"set k a\\b\nPING\n", quotes + `["PING"]`},
		{"post\r\n", http},
		{"hOST: x\r\n", http},
		{"Host:x\r\n", http},
		{"hostile x\r\n", `["hostile" "x"]`},
		{"po\u017ft x\r\n", `["poſt" "x"]`},
		{"set k http/1.1\r\n", `["set" "k" "http/1.1"]`},
		{"set k x HTTP/1.1\r\n", `["set" "k" "x" "HTTP/1.1"]`},
		{"GET /\"' HTTP/1.1\r\n", http},
		{" *1\r\n", `["*1"]`},
	} {
		t.Run(strconv.Quote(test.in), func(t *testing.T) {
			if got := says(test.in, Limits{}); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// In front of an array, an empty line makes Dragonfly run what the bulks contain.
func TestEmptyLineIsNeverForwarded(t *testing.T) {
	in := []byte("\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$14\r\n\r\nDEL victim\r\n\r\n")
	var c Commands
	n, complete, err := c.Next(in)
	if n != 2 || !complete || err != nil || c.Args() != 0 || c.Canonical() || c.Name(in) != nil {
		t.Fatalf("empty line: %d %v %v, %d args", n, complete, err, c.Args())
	}
	if out := c.AppendCanonical(nil, in[:n]); len(out) != 0 {
		t.Fatalf("forwards %q", out)
	}
	in = in[n:]
	if n, complete, err = c.Next(in); n != len(in) || !complete || err != nil || c.Args() != 3 || !c.Canonical() {
		t.Fatalf("array: %d %v %v, %d args", n, complete, err, c.Args())
	}
}

func TestNameAndSubAppearAsTheyArrive(t *testing.T) {
	full := []byte("*3\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n$1\r\nx\r\n")
	var c Commands
	for have := range len(full) {
		buf := full[:have]
		if n, complete, err := c.Next(buf); n != 0 || complete || err != nil {
			t.Fatalf("%d bytes: %d %v %v", have, n, complete, err)
		}
		wantArgs, wantName, wantSub := 0, "", ""
		if have >= 4 {
			wantArgs = 3
		}
		if have >= 16 {
			wantName = "CLIENT"
		}
		if have >= 24 {
			wantSub = "ID"
		}
		if c.Args() != wantArgs || string(c.Name(buf)) != wantName || string(c.Sub(buf)) != wantSub {
			t.Fatalf("%d bytes: %d %q %q", have, c.Args(), c.Name(buf), c.Sub(buf))
		}
	}
	if n, complete, err := c.Next(full); n != len(full) || !complete || err != nil || string(c.Sub(full)) != "ID" {
		t.Fatalf("whole: %d %v %v %q", n, complete, err, c.Sub(full))
	}
	short := []byte("*1\r\n$0\r\n\r\n")
	if _, complete, _ := c.Next(short); !complete || c.Name(short) == nil || c.Sub(short) != nil {
		t.Fatalf("empty name: %v %v", c.Name(short), c.Sub(short))
	}
}

func TestFatalErrorStays(t *testing.T) {
	var c Commands
	for range 3 {
		if _, complete, err := c.Next([]byte("*0\r\n*1\r\n$4\r\nPING\r\n")); complete || err != errMultibulk {
			t.Fatalf("Next: %v %v", complete, err)
		}
	}
	if _, _, err := c.Skip([]byte("*1\r\n$4\r\nPING\r\n")); err != errMultibulk {
		t.Fatalf("Skip: %v", err)
	}
}

// What was looked at is overwritten with bytes that would end or break the command if they were looked at again.
func TestCommandsNeverRescan(t *testing.T) {
	arrays := []byte("*1024\r\n" + strings.Repeat("$1000\r\n"+strings.Repeat("x", 1000)+"\r\n", 1024))
	inline := append(bytes.Repeat([]byte("x"), 60<<10), '\r', '\n')
	for _, frame := range [][]byte{arrays, inline} {
		c := Commands{Limits: Limits{MaxInline: 1 << 20}}
		buf := make([]byte, 0, len(frame))
		painted := 1 // the first byte says array or inline
		for i, b := range frame {
			buf = append(buf, b)
			n, complete, err := c.Next(buf)
			if err != nil || complete != (i == len(frame)-1) || complete && n != len(frame) {
				t.Fatalf("byte %d of %d: %d %v %v", i, len(frame), n, complete, err)
			}
			for ; !complete && painted < c.off-1; painted++ { // the last byte may be the CR of a line's end
				buf[painted] = '\n'
			}
		}
		if painted < len(frame)*9/10 {
			t.Fatalf("overwrote only %d of %d bytes", painted, len(frame))
		}
	}
}

func TestStreamHoldsNothing(t *testing.T) {
	var c Commands
	in := []byte("*+3\r\n$03\r\nSET\r\n$1\r\nk\r\n$10\r\n01234")
	if n, complete, err := c.Next(in); n != 0 || complete || err != nil || c.Args() != 3 {
		t.Fatalf("Next: %d %v %v", n, complete, err)
	}
	out, n, done, err := c.Stream(nil, in)
	if string(out) != "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n01234" || n != len(in) || done || err != nil {
		t.Fatalf("held: %q %d %v %v", out, n, done, err)
	}
	out, n, done, err = c.Stream(nil, []byte("56789\r"))
	if string(out) != "56789" || n != 5 || done || err != nil {
		t.Fatalf("cut end: %q %d %v %v", out, n, done, err)
	}
	out, n, done, err = c.Stream(nil, []byte("\r\nPING\r\n"))
	if string(out) != "\r\n" || n != 2 || !done || err != nil {
		t.Fatalf("end: %q %d %v %v", out, n, done, err)
	}
	next := []byte("PING\r\n")
	if n, complete, err := c.Next(next); n != 6 || !complete || err != nil || string(c.Name(next)) != "PING" {
		t.Fatalf("after: %d %v %v", n, complete, err)
	}
}

func TestCommandsAllocateNothing(t *testing.T) {
	batch := []byte(strings.Repeat("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n\r\n*+1\r\n$04\r\nPING\r\nset k 'v'\r\n", 20))
	var c Commands
	out := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		for buf := batch; len(buf) > 0; {
			n, complete, err := c.Next(buf)
			if !complete && err == nil || n == 0 {
				t.Fatal("batch is not whole")
			}
			out = c.AppendCanonical(out[:0], buf[:n])
			buf = buf[n:]
		}
	}); n != 0 {
		t.Errorf("a batch: %v allocations", n)
	}
	for _, in := range []string{
		"*65536\r\n$536870912\r\n", "*9223372036854775807\r\n", "*1\r\n$9223372036854775807\r\n", "GET / HTTP/1.1\r\n",
		"*1\r\n$536870912\r\nabc",
	} {
		in := []byte(in)
		if n := testing.AllocsPerRun(100, func() {
			c = Commands{}
			_, _, _ = c.Next(in)
			_, _, _ = c.Skip(in)
		}); n != 0 {
			t.Errorf("%q: %v allocations", in, n)
		}
	}
}

func BenchmarkCommandsPipeline16(b *testing.B) {
	batch := []byte(strings.Repeat("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$32\r\n0123456789abcdef0123456789abcdef\r\n", 16))
	var c Commands
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		for buf := batch; len(buf) > 0; {
			n, complete, err := c.Next(buf)
			if !complete || err != nil {
				b.Fatal(err)
			}
			buf = buf[n:]
		}
	}
}

func BenchmarkCommandsStream(b *testing.B) {
	command := AppendCommand(nil, "SET", "k", strings.Repeat("x", 1<<20))
	out := make([]byte, 0, len(command))
	var c Commands
	b.SetBytes(int64(len(command)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, done, err := c.Stream(out[:0], command); !done || err != nil {
			b.Fatal(err)
		}
	}
}
