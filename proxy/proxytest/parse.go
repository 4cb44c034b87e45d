package proxytest

import (
	"bytes"
	"strconv"
	"strings"
)

// Dragonfly's defaults for --max_multi_bulk_len and --max_bulk_len.
const (
	maxArgs = 65536
	maxBulk = 2 << 30
)

// protocolError is the <what> of Dragonfly's protocol errors.
type protocolError string

const (
	badMultibulk protocolError = "invalid multibulk length"
	badBulk      protocolError = "invalid bulk length"
	badParse     protocolError = "parse error"
)

func (e protocolError) Error() string { return string(e) }

// parser frames commands as Dragonfly does, faults included: an empty line leaves it in inline mode until the end of
// the read, so that an array in the same read is run line by line.
type parser struct {
	buf    []byte
	inline bool // a line was begun, or an empty one seen in this read
	empty  bool // the last line was empty

	args [][]byte
	left int // bulks to come of an array; 0: between commands
	bulk int // length of the bulk whose bytes come next; -1: its header comes next
}

func (p *parser) feed(b []byte) { p.buf = append(p.buf, b...) }

// endOfRead forgets the inline mode that an empty line has left.
func (p *parser) endOfRead() {
	if p.empty && len(p.buf) == 0 {
		p.inline, p.empty = false, false
	}
}

// next returns the next command; nil asks for more bytes. The arguments are the caller's.
func (p *parser) next() ([][]byte, error) {
	for {
		switch {
		case p.left > 0:
			args, err := p.array()
			if args != nil || err != nil {
				return args, err
			}
			if p.left > 0 {
				return nil, nil
			}
		case p.inline:
			i := bytes.IndexByte(p.buf, '\n')
			if i < 0 {
				p.empty = p.empty && len(p.buf) == 0
				return nil, nil
			}
			fields := bytes.FieldsFunc(p.buf[:i], func(r rune) bool { return r <= ' ' })
			args := cloneArgs(fields)
			p.buf = p.buf[i+1:]
			if len(args) == 0 {
				p.empty = true
				continue
			}
			p.inline, p.empty = false, false
			return args, nil
		case len(p.buf) < 2:
			return nil, nil
		case p.buf[0] != '*':
			p.inline = true
		default:
			n, ok, err := p.number()
			if err != nil || !ok {
				return nil, err
			}
			if n <= 0 || n > maxArgs {
				return nil, badMultibulk
			}
			p.left, p.bulk, p.args = n, -1, nil
		}
	}
}

func (p *parser) array() ([][]byte, error) {
	for p.left > 0 {
		if p.bulk < 0 {
			if len(p.buf) == 0 {
				return nil, nil
			}
			if p.buf[0] != '$' {
				return nil, badBulk
			}
			n, ok, err := p.number()
			if err != nil || !ok {
				return nil, err
			}
			if n < -1 {
				return nil, badMultibulk
			}
			if n < 0 {
				return nil, badBulk
			}
			p.bulk = n
		}
		if p.bulk > maxBulk && len(p.buf) > 0 {
			return nil, badBulk // only looked at when the next byte comes
		}
		if len(p.buf) < p.bulk+2 {
			return nil, nil
		}
		if p.buf[p.bulk] != '\r' || p.buf[p.bulk+1] != '\n' {
			return nil, badParse
		}
		p.args = append(p.args, bytes.Clone(p.buf[:p.bulk:p.bulk]))
		p.buf = p.buf[p.bulk+2:]
		p.bulk = -1
		p.left--
	}
	args := p.args
	p.args = nil
	return args, nil
}

// number takes a header line. Like Dragonfly it accepts signs, leading zeros and blanks around the digits.
func (p *parser) number() (n int, ok bool, err error) {
	i := bytes.IndexByte(p.buf, '\n')
	if i < 0 {
		if len(p.buf) > 32 {
			return 0, false, badMultibulk
		}
		return 0, false, nil
	}
	if p.buf[i-1] != '\r' {
		return 0, false, badMultibulk
	}
	n, e := strconv.Atoi(strings.TrimSpace(string(p.buf[1 : i-1])))
	if e != nil {
		return 0, false, badMultibulk
	}
	p.buf = p.buf[i+1:]
	return n, true, nil
}

func cloneArgs(in [][]byte) [][]byte {
	out := make([][]byte, len(in))
	for i, a := range in {
		out[i] = append([]byte{}, a...)
	}
	return out
}
