package proxytest

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

var placeholder = regexp.MustCompile(`\{(\*|[a-z]+=\*|\$[a-z]+)\}`)

// matcher compares what came with the bytes that a transcript line asks for.
type matcher struct {
	literal []byte
	pattern *regexp.Regexp // nil: literal only
}

func newMatcher(want string, kept map[string]string) (*matcher, error) {
	var literal bytes.Buffer
	var expr strings.Builder
	expr.WriteString(`(?s)\A`)
	wild := false
	add := func(text string) error {
		b, err := unescape(text)
		if err != nil {
			return err
		}
		literal.Write(b)
		for _, x := range b {
			expr.WriteString(quoteByte(x))
		}
		return nil
	}
	for want != "" {
		at := placeholder.FindStringSubmatchIndex(want)
		if at == nil {
			break
		}
		if err := add(want[:at[0]]); err != nil {
			return nil, err
		}
		switch name := want[at[2]:at[3]]; {
		case name[0] == '$':
			if err := add(kept[name[1:]]); err != nil {
				return nil, err
			}
		case name == "*":
			wild = true
			expr.WriteString(`.*?`)
		default:
			wild = true
			expr.WriteString(`(?P<` + strings.TrimSuffix(name, "=*") + `>.*?)`)
		}
		want = want[at[1]:]
	}
	if err := add(want); err != nil {
		return nil, err
	}
	m := &matcher{literal: literal.Bytes()}
	if !wild {
		return m, nil
	}
	expr.WriteString(`\z`)
	var err error
	m.pattern, err = regexp.Compile(expr.String())
	return m, err
}

func quoteByte(x byte) string {
	if x < 0x80 {
		return regexp.QuoteMeta(string(rune(x)))
	}
	return `[^\x00-\x7f]` // regexp works on runes: any such byte will do
}

// match returns how many bytes of got the line takes; -1: more must come; wrong: they cannot match.
func (m *matcher) match(got []byte, kept map[string]string) (n int, wrong bool) {
	if m.pattern == nil {
		k := min(len(got), len(m.literal))
		switch {
		case !bytes.Equal(got[:k], m.literal[:k]):
			return 0, true
		case k < len(m.literal):
			return -1, false
		}
		return k, false
	}
	for end := 0; end < len(got); {
		size := frameSize(got[end:])
		if size < 0 { // not a frame: HTTP
			size = len(got) - end
		}
		if size == 0 {
			break
		}
		end += size
		if sub := m.pattern.FindSubmatch(got[:end]); sub != nil {
			for i, name := range m.pattern.SubexpNames() {
				if name != "" {
					kept[name] = string(sub[i])
				}
			}
			return end, false
		}
	}
	return -1, false
}

// frameSize is the size of the first frame in b; 0: it is not whole; -1: it is none.
func frameSize(b []byte) int {
	i := bytes.Index(b, []byte("\r\n"))
	switch i {
	case -1:
		return 0
	case 0:
		return -1
	}
	head := i + 2
	n, err := strconv.Atoi(string(b[1:i]))
	switch b[0] {
	case '+', '-', ':', ',', '#', '(', '_':
		return head
	case '$', '=', '!':
		switch {
		case err != nil:
			return -1
		case n < 0:
			return head
		case head+n+2 > len(b):
			return 0
		}
		return head + n + 2
	case '*', '~', '>', '%':
		if err != nil {
			return -1
		}
		if b[0] == '%' {
			n *= 2
		}
		size := head
		for range n {
			s := frameSize(b[size:])
			if s <= 0 {
				return s
			}
			size += s
		}
		return size
	}
	return -1
}
