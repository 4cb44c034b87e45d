package resp

import (
	"bytes"

	"github.com/tidwall/redcon"
)

// nextInline frames a line that is no array: words between blanks and TABs, ended by LF with or without a CR before it.
func (c *Commands) nextInline(buf []byte) (n int, complete bool, err error) {
	limit := min(len(buf), c.Limits.maxInline()+1)
	lf := bytes.IndexByte(buf[c.off:limit], '\n')
	if lf < 0 {
		c.off = limit
		if limit > c.Limits.maxInline() {
			return 0, false, c.fail(errInline)
		}
		return 0, false, nil
	}
	n = c.off + lf + 1
	c.ended, c.inline = true, true
	line := inlineText(buf[:n])
	if isEmpty(line) {
		return n, true, nil
	}
	var words int
	var third []byte
	for start, end := nextWord(line, 0); start < end; start, end = nextWord(line, end) {
		words++
		switch words {
		case 1:
			c.name, c.nameEnd = start, end
		case 2:
			c.sub, c.subEnd = start, end
		case 3:
			third = line[start:end]
		}
	}
	switch {
	case isHTTP(line[c.name:c.nameEnd], third):
		return 0, false, c.fail(errHTTP)
	case int64(words) > c.Limits.maxArgs():
		return 0, false, c.fail(errMultibulk)
	case bytes.IndexByte(line, '"') >= 0 || bytes.IndexByte(line, '\'') >= 0 || bytes.IndexByte(line, '\\') >= 0:
		c.nameEnd, c.subEnd = 0, 0
		return n, false, errQuotes
	}
	c.args = words
	return n, true, nil
}

// inlineText returns the line without its end.
func inlineText(frame []byte) []byte {
	line := frame[:len(frame)-1]
	if len(line) > 0 && line[len(line)-1] == '\r' {
		line = line[:len(line)-1]
	}
	return line
}

// isEmpty reports whether a line has nothing that Dragonfly takes for a word.
func isEmpty(line []byte) bool {
	for _, b := range line {
		if b != ' ' && b != '\t' && b != '\r' && b != 0 {
			return false
		}
	}
	return true
}

// nextWord finds the first word of line at or behind from; start == end when there is none.
func nextWord(line []byte, from int) (start, end int) {
	for start = from; start < len(line) && (line[start] == ' ' || line[start] == '\t'); {
		start++
	}
	for end = start; end < len(line) && line[end] != ' ' && line[end] != '\t'; {
		end++
	}
	return start, end
}

// isHTTP recognises a request line (GET / HTTP/1.1) and the two lines that Redis refuses against cross-protocol
// requests from browsers.
func isHTTP(first, third []byte) bool {
	return bytes.HasPrefix(third, []byte("HTTP/")) ||
		len(first) == 4 && bytes.EqualFold(first, []byte("POST")) ||
		len(first) >= 5 && bytes.EqualFold(first[:5], []byte("Host:"))
}

func appendInline(dst, frame []byte, words int) []byte {
	if words == 0 {
		return dst
	}
	line := inlineText(frame)
	dst = redcon.AppendArray(dst, words)
	for start, end := nextWord(line, 0); start < end; start, end = nextWord(line, end) {
		dst = redcon.AppendBulk(dst, line[start:end])
	}
	return dst
}
