package resp

import (
	"math/big"
	"regexp"
	"strings"
)

// The slow, obvious parsers that the framers are compared with. They see everything there is at once.

type verdict int

const (
	whole verdict = iota
	cut
	broken
)

// A refCommand is what one call of Next should say.
type refCommand struct {
	n         int
	verdict   verdict
	err       *ProtocolError
	args      []string
	canonical bool
}

func refFatal(e *ProtocolError) refCommand { return refCommand{verdict: broken, err: e} }

var refNumberText = regexp.MustCompile(`^[+-]?[0-9]+$`)

// refNumber reads the header line at the start of in; in[0] is its type.
func refNumber(in string) (v int64, n int, canonical bool, verdict verdict) {
	lf := strings.IndexByte(in, '\n')
	if lf < 0 || lf >= 32 {
		if len(in) >= 32 {
			return 0, 0, false, broken
		}
		return 0, 0, false, cut
	}
	text, ok := strings.CutSuffix(in[1:lf], "\r")
	if !ok || !refNumberText.MatchString(text) {
		return 0, 0, false, broken
	}
	var x big.Int
	x.SetString(strings.TrimPrefix(text, "+"), 10)
	if text[0] == '-' && x.Sign() == 0 {
		x.SetInt64(-1)
	}
	magnitude := new(big.Int).Abs(&x)
	if !magnitude.IsInt64() {
		return 0, 0, false, broken
	}
	return x.Int64(), lf + 1, text == x.String(), whole
}

func refNext(in string, l Limits) refCommand {
	if in == "" {
		return refCommand{verdict: cut}
	}
	if in[0] != '*' {
		return refInline(in, l)
	}
	count, n, canonical, verdict := refNumber(in)
	switch {
	case verdict == cut:
		return refCommand{verdict: cut}
	case verdict == broken || count < 1 || count > l.maxArgs():
		return refFatal(errMultibulk)
	}
	c := refCommand{canonical: canonical}
	for range count {
		if n == len(in) {
			return refCommand{verdict: cut}
		}
		if in[n] != '$' {
			return refFatal(errBulk)
		}
		length, size, plain, verdict := refNumber(in[n:])
		switch {
		case verdict == cut:
			return refCommand{verdict: cut}
		case verdict == broken, length < -1:
			return refFatal(errMultibulk)
		case length < 0 || length > l.maxBulk():
			return refFatal(errBulk)
		}
		n += size
		if int64(len(in)-n) < length+2 {
			return refCommand{verdict: cut}
		}
		end := n + int(length)
		if in[end:end+2] != "\r\n" {
			return refFatal(errParse)
		}
		c.args = append(c.args, in[n:end])
		c.canonical = c.canonical && plain
		n = end + 2
	}
	c.n = n
	return c
}

func refInline(in string, l Limits) refCommand {
	line, _, ok := strings.Cut(in, "\n")
	if len(line) > l.maxInline() {
		return refFatal(errInline)
	}
	if !ok {
		return refCommand{verdict: cut}
	}
	c := refCommand{n: len(line) + 1}
	line = strings.TrimSuffix(line, "\r")
	if strings.Trim(line, " \t\r\x00") == "" {
		return c
	}
	c.args = strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	first := strings.ToLower(c.args[0])
	switch {
	case first == "post", strings.HasPrefix(first, "host:"), len(c.args) > 2 && strings.HasPrefix(c.args[2], "HTTP/"):
		return refFatal(errHTTP)
	case int64(len(c.args)) > l.maxArgs():
		return refFatal(errMultibulk)
	case strings.ContainsAny(line, `"'\`):
		return refCommand{n: c.n, verdict: broken, err: errQuotes}
	}
	return c
}

// A refReply is what Replies should say of one top-level frame.
type refReply struct {
	n       int
	verdict verdict
	kind    byte
	null    bool
	length  int64
	line    string
}

type refReplies struct{ strict bool }

func refCut(v verdict) refReply { return refReply{verdict: v} }

func (p refReplies) next(in string) refReply {
	r, _ := p.element(in, 0, false)
	return r
}

// element reads attributes and the value behind them, or the '.' that ends the streamed aggregate it stands in.
func (p refReplies) element(in string, depth int, streamed bool) (r refReply, dot bool) {
	start := 0
	for start < len(in) && in[start] == '|' {
		count, n, v := refHeader(in[start:])
		if v != whole {
			return refCut(v), false
		}
		if count < 0 || count > 0 && depth == 1024 {
			return refCut(broken), false
		}
		start += n
		for range 2 * count {
			e, _ := p.element(in[start:], depth+1, false)
			if e.verdict != whole {
				return e, false
			}
			start += e.n
		}
	}
	if start == len(in) {
		return refCut(cut), false
	}
	if in[start] == '.' {
		switch {
		case strings.HasPrefix(in[start:], ".\r\n") && streamed && start == 0:
			return refReply{n: 3}, true
		case in[start:] == "." || in[start:] == ".\r":
			return refCut(cut), false
		}
		return refCut(broken), false
	}
	if p.strict && in[start] == '>' && (depth > 0 || start > 0) {
		return refCut(broken), false
	}
	r = p.value(in[start:], depth)
	r.n += start
	return r, false
}

func (p refReplies) value(in string, depth int) refReply {
	kind := in[0]
	switch kind {
	case '+', '-', ':', ',', '#', '(', '_':
		return p.line(in)
	case '$', '!', '=':
		return p.bulk(in)
	case '*', '%', '~', '>':
	default:
		return refCut(broken)
	}
	count, n, v := refHeader(in)
	if v != whole {
		return refCut(v)
	}
	r := refReply{kind: kind, length: count}
	total := count
	switch {
	case kind == '*' && count == nullLength:
		return refReply{n: n, kind: kind, null: true, length: -1}
	case count == nullLength:
		return refCut(broken)
	case count != 0 && depth == 1024:
		return refCut(broken)
	case count == streamedLength:
		r.length, total = -1, 1<<62
	case kind == '%':
		total *= 2
	}
	for i := int64(0); i < total; i++ {
		e, dot := p.element(in[n:], depth+1, count == streamedLength)
		if e.verdict != whole {
			return e
		}
		n += e.n
		if dot {
			if kind == '%' && i%2 != 0 {
				return refCut(broken)
			}
			break
		}
	}
	r.n = n
	return r
}

func (p refReplies) bulk(in string) refReply {
	length, n, v := refHeader(in)
	if v != whole {
		return refCut(v)
	}
	switch {
	case in[0] == '$' && length == nullLength:
		return refReply{n: n, kind: '$', null: true, length: -1}
	case in[0] == '$' && length == streamedLength:
		for {
			if n == len(in) {
				return refCut(cut)
			}
			if in[n] != ';' {
				return refCut(broken)
			}
			size, head, v := refHeader(in[n:])
			if v != whole {
				return refCut(v)
			}
			if size < 0 {
				return refCut(broken)
			}
			n += head
			if size == 0 {
				return refReply{n: n, kind: '$', length: -1}
			}
			body, v := refContent(in[n:], size)
			if v != whole {
				return refCut(v)
			}
			n += body
		}
	case length < 0:
		return refCut(broken)
	}
	body, v := refContent(in[n:], length)
	if v != whole {
		return refCut(v)
	}
	return refReply{n: n + body, kind: in[0], length: length}
}

func refContent(in string, length int64) (n int, v verdict) {
	if int64(len(in)) <= length {
		return 0, cut
	}
	end := in[length:]
	switch {
	case strings.HasPrefix(end, "\r\n"):
		return int(length) + 2, whole
	case end == "\r":
		return 0, cut
	}
	return 0, broken
}

var (
	refHeaderLine = regexp.MustCompile(`^.(0|[1-9][0-9]{0,17}|\?|-1)\r\n`)
	refHeaderCut  = regexp.MustCompile(`^.(((0|[1-9][0-9]{0,17})?|\?|-1?)|(0|[1-9][0-9]{0,17}|\?|-1)\r)$`)
)

func refHeader(in string) (v int64, n int, state verdict) {
	m := refHeaderLine.FindStringSubmatch(in)
	if m == nil {
		if !strings.Contains(in, "\n") && refHeaderCut.MatchString(in) {
			return 0, 0, cut
		}
		return 0, 0, broken
	}
	switch m[1] {
	case "?":
		return streamedLength, len(m[0]), whole
	case "-1":
		return nullLength, len(m[0]), whole
	}
	var x big.Int
	x.SetString(m[1], 10)
	return x.Int64(), len(m[0]), whole
}

var refScalar = map[byte]*regexp.Regexp{
	':': regexp.MustCompile(`^[+-]?[0-9]{1,20}$`),
	'(': regexp.MustCompile(`^[+-]?[0-9]+$`),
	',': regexp.MustCompile(`^[+-]?(inf|nan|[0-9][0-9.eE+-]*)$`),
	'#': regexp.MustCompile(`^[tf]$`),
	'_': regexp.MustCompile(`^$`),
}

func (p refReplies) line(in string) refReply {
	kind := in[0]
	text, _, ok := strings.Cut(in[1:], "\r\n")
	if !ok {
		text = strings.TrimSuffix(text, "\r")
	}
	if len(text) > 128<<10 || p.strict && strings.ContainsAny(text, "\r\n") {
		return refCut(broken)
	}
	if p.strict && (kind == ':' || kind == '(') && strings.Trim(text, "0123456789") != "" {
		if s := strings.TrimLeft(text, "+-"); len(text)-len(s) != 1 || strings.Trim(s, "0123456789") != "" {
			return refCut(broken)
		}
	}
	if !ok {
		return refCut(cut)
	}
	if want := refScalar[kind]; p.strict && want != nil && (!want.MatchString(text) || len(text) > 64 && kind != '(' || len(text) > 20 && kind == ':') {
		return refCut(broken)
	}
	r := refReply{n: len(text) + 3, kind: kind, length: -1, null: kind == '_'}
	if kind == '+' || kind == '-' {
		r.line = text[:min(len(text), 64)]
	}
	return r
}
