package resp

import (
	"bytes"
	"math"

	"github.com/tidwall/redcon"
)

// Limits bounds one command of a client. A zero field means its default.
type Limits struct {
	MaxBulk   int64 // bytes in one bulk; default 512 MiB, never above 9,999,999,999
	MaxArgs   int   // arguments of one command; default 65,536 (Dragonfly's)
	MaxInline int   // bytes of an inline line, without its LF; default 64 KiB
}

const (
	defaultMaxBulk   = 512 << 20
	defaultMaxArgs   = 65536
	defaultMaxInline = 64 << 10
	maxLength        = 9_999_999_999 // ten digits: offset + length never overflows
)

func (l *Limits) maxBulk() int64 {
	if l.MaxBulk <= 0 {
		return defaultMaxBulk
	}
	return min(l.MaxBulk, maxLength)
}

func (l *Limits) maxArgs() int64 {
	if l.MaxArgs <= 0 {
		return defaultMaxArgs
	}
	return int64(l.MaxArgs)
}

func (l *Limits) maxInline() int {
	if l.MaxInline <= 0 {
		return defaultMaxInline
	}
	return l.MaxInline
}

// Commands frames what a client sends. One reader goroutine owns it. The zero value works.
type Commands struct {
	Limits Limits

	off  int   // looked at up to here: the next header, an open bulk's content, or how far an LF was sought
	args int   // declared arguments; 0 while the array's header is not known
	left int   // arguments not yet complete
	bulk int64 // bytes of the open bulk's content; -1: a bulk's header comes next

	name, nameEnd int // first argument in buf; nameEnd 0: not there yet
	sub, subEnd   int // second argument

	inline    bool
	lenient   bool // a number with a sign or leading zeros
	ended     bool // the command is complete: the next call begins another
	streaming bool
	fatal     *ProtocolError
}

// Next continues to frame the command at the start of buf. buf begins where the last complete command ended and holds
// at least what it held at the previous call: what was looked at is not looked at again.
//
// complete: the command occupies buf[:n]. err is a *ProtocolError; when it is not Fatal, the n bytes of the offending
// line are to be skipped and framing goes on behind them. A fatal error is returned again by every later call.
func (c *Commands) Next(buf []byte) (n int, complete bool, err error) { // hot

	if c.fatal != nil {
		return 0, false, c.fatal
	}
	if c.ended || c.streaming {
		c.restart()
	}
	if c.args == 0 {
		if len(buf) == 0 {
			return 0, false, nil
		}
		if buf[0] != '*' {
			return c.nextInline(buf)
		}
		if size, err := c.arrayHeader(buf); size == 0 {
			return 0, false, err
		}
	}
	for c.left > 0 {
		if c.bulk < 0 {
			if size, err := c.bulkHeader(buf[c.off:]); size == 0 {
				return 0, false, err
			}
		}
		if int64(len(buf)-c.off) < c.bulk+2 {
			return 0, false, nil
		}
		end := c.off + int(c.bulk)
		if buf[end] != '\r' || buf[end+1] != '\n' {
			return 0, false, c.fail(errParse)
		}
		switch c.left {
		case c.args:
			c.name, c.nameEnd = c.off, end
		case c.args - 1:
			c.sub, c.subEnd = c.off, end
		}
		c.off = end + 2
		c.bulk = -1
		c.left--
	}
	c.ended = true
	return c.off, true, nil
}

func (c *Commands) restart() {
	c.off, c.args, c.left, c.bulk = 0, 0, 0, -1
	c.nameEnd, c.subEnd = 0, 0
	c.inline, c.lenient, c.ended, c.streaming = false, false, false, false
}

func (c *Commands) fail(e *ProtocolError) error {
	c.fatal = e
	return e
}

// arrayHeader reads the '*' line at the start of b. Size 0 without an error: it is not wholly there.
func (c *Commands) arrayHeader(b []byte) (size int, err error) { // hot

	h := parseHeader(b)
	if h.bad {
		return 0, c.fail(errMultibulk)
	}
	if h.size == 0 {
		return 0, nil
	}
	if h.value < 1 || h.value > c.Limits.maxArgs() {
		return 0, c.fail(errMultibulk)
	}
	c.args = int(h.value)
	c.left = c.args
	c.bulk = -1
	c.lenient = c.lenient || h.lenient
	c.off += h.size
	return h.size, nil
}

// bulkHeader reads the '$' line at the start of b. Size 0 without an error: it is not wholly there.
func (c *Commands) bulkHeader(b []byte) (size int, err error) { // hot

	if len(b) == 0 {
		return 0, nil
	}
	if b[0] != '$' {
		return 0, c.fail(errBulk)
	}
	h := parseHeader(b)
	if h.bad {
		return 0, c.fail(errMultibulk) // so says Dragonfly, of a bulk too
	}
	if h.size == 0 {
		return 0, nil
	}
	if h.value < -1 {
		return 0, c.fail(errMultibulk) // likewise
	}
	if h.value < 0 || h.value > c.Limits.maxBulk() {
		return 0, c.fail(errBulk)
	}
	c.bulk = h.value
	c.lenient = c.lenient || h.lenient
	c.off += h.size
	return h.size, nil
}

// Args returns the number of arguments of the command that Next last looked at; while it is incomplete, the declared
// count, 0 when not known yet. A complete command of 0 arguments is an empty line: it must be dropped, for in front of
// an array it makes Dragonfly run the contents of bulks.
func (c *Commands) Args() int { return c.args }

// Name returns the command's first argument, in buf as given to Next; nil while it is not wholly there.
func (c *Commands) Name(buf []byte) []byte {
	if c.nameEnd == 0 {
		return nil
	}
	return buf[c.name:c.nameEnd:c.nameEnd]
}

// Sub returns the command's second argument, in buf as given to Next; nil if there is none or it is not wholly there.
func (c *Commands) Sub(buf []byte) []byte {
	if c.subEnd == 0 {
		return nil
	}
	return buf[c.sub:c.subEnd:c.subEnd]
}

// Canonical reports whether the complete command may be forwarded as it is. If not, it is inline or has lenient
// numbers: forward AppendCanonical instead.
func (c *Commands) Canonical() bool { return !c.inline && !c.lenient }

// AppendCanonical appends the command that Next just completed, frame = buf[:n], as an array of bulks with plain
// numbers. Nothing is appended for an empty line.
func (c *Commands) AppendCanonical(dst, frame []byte) []byte {
	switch {
	case c.inline:
		return appendInline(dst, frame, c.args)
	case !c.lenient:
		return append(dst, frame...)
	}
	h := parseHeader(frame)
	dst = redcon.AppendArray(dst, int(h.value))
	for rest := frame[h.size:]; len(rest) > 0; {
		h := parseHeader(rest)
		end := h.size + int(h.value)
		dst = redcon.AppendBulk(dst, rest[h.size:end])
		rest = rest[end+2:]
	}
	return dst
}

// maxHeader bounds a header line of a client, CR LF included (Dragonfly's bound).
const maxHeader = 32

// A number is what stands in a header line.
type number struct {
	value   int64
	size    int  // of the line, CR LF included; 0: not wholly there
	bad     bool // not a number, or a line too long
	lenient bool // a sign or leading zeros: not to be forwarded
}

// parseHeader reads the number in the line b, whose first byte is the type.
func parseHeader(b []byte) number { // hot

	var v int64
	for i := 1; i < len(b) && i <= 10; i++ {
		if d := b[i] - '0'; d <= 9 {
			v = v*10 + int64(d)
			continue
		}
		if b[i] != '\r' || i == 1 || i+1 == len(b) || b[i+1] != '\n' || b[1] == '0' && i > 2 {
			break
		}
		return number{value: v, size: i + 2}
	}
	return parseLenient(b)
}

// parseLenient takes what Dragonfly takes besides plain digits: a sign and leading zeros, within int64.
func parseLenient(b []byte) number {
	end := bytes.IndexByte(b[:min(len(b), maxHeader)], '\n')
	if end < 0 {
		return number{bad: len(b) >= maxHeader}
	}
	bad := number{size: end + 1, bad: true}
	if b[end-1] != '\r' {
		return bad
	}
	digits := b[1 : end-1]
	if len(digits) == 0 {
		return bad
	}
	negative := digits[0] == '-'
	lenient := negative || digits[0] == '+'
	if lenient {
		digits = digits[1:]
	}
	if len(digits) == 0 {
		return bad
	}
	var v int64
	for _, c := range digits {
		d := int64(c - '0')
		if c < '0' || c > '9' || v > (math.MaxInt64-d)/10 {
			return bad
		}
		v = v*10 + d
	}
	lenient = lenient || digits[0] == '0' && len(digits) > 1
	if negative {
		v = -max(v, 1) // "-0" is refused like any other negative
	}
	return number{value: v, size: end + 1, lenient: lenient}
}

// SplitArgs appends the arguments of a complete canonical frame to args[:0]; they alias the frame. It must never see
// other bytes: redcon panics on a negative or huge length.
func SplitArgs(frame []byte, args [][]byte) [][]byte {
	if len(frame) == 0 || frame[0] != '*' { // redcon would take it as Tile38 or telnet
		return args[:0]
	}
	_, args, _, _, err := redcon.ReadNextCommand(frame, args[:0])
	if err != nil {
		return args[:0]
	}
	return args
}
