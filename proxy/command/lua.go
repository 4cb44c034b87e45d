package command

import "bytes"

// Kinds of tokens besides punctuation, whose kind is the byte itself.
const (
	luaEnd    = 0
	luaBad    = 1   // not closed, or bytes that no script has: bytecode, for one
	luaName   = 'n' // keywords too
	luaString = 's' // in quotes
	luaLong   = 'l' // in long brackets
)

// luaToken lives as long as the body.
type luaToken struct {
	kind    byte
	text    []byte // of a name or of a string without its quotes
	escaped bool   // a string with a backslash
}

// lua cuts a body into tokens where Lua does. Numbers come as single bytes and names: they do not matter here.
type lua struct {
	in []byte
}

func (l *lua) next() luaToken {
	if !l.skipBlanks() {
		return luaToken{kind: luaBad}
	}
	if len(l.in) == 0 {
		return luaToken{kind: luaEnd}
	}
	switch b := l.in[0]; {
	case b == '\'' || b == '"':
		return l.quoted(b)
	case '0' <= b && b <= '9':
		l.in = l.in[1:]
		return luaToken{kind: '0'}
	case wordByte(b):
		n := 1
		for n < len(l.in) && wordByte(l.in[n]) {
			n++
		}
		return luaToken{kind: luaName, text: l.take(n)}
	case b == '[':
		if level := l.bracket(); level >= 0 {
			text, ok := l.long(level)
			if !ok {
				return luaToken{kind: luaBad}
			}
			return luaToken{kind: luaLong, text: text}
		}
	case b < ' ' || b > '~':
		return luaToken{kind: luaBad}
	}
	return luaToken{kind: l.take(1)[0]}
}

func (l *lua) take(n int) []byte {
	taken := l.in[:n]
	l.in = l.in[n:]
	return taken
}

// skipBlanks skips comments too; false: one is not closed.
func (l *lua) skipBlanks() bool {
	for {
		l.in = bytes.TrimLeft(l.in, " \t\r\n\v\f")
		if !bytes.HasPrefix(l.in, []byte("--")) {
			return true
		}
		l.in = l.in[2:]
		if level := l.bracket(); level >= 0 {
			if _, ok := l.long(level); !ok {
				return false
			}
			continue
		}
		end := bytes.IndexAny(l.in, "\r\n") // a lone CR ends a line in Lua
		if end < 0 {
			end = len(l.in)
		}
		l.in = l.in[end:]
	}
}

// bracket is the level of the long bracket that opens here: 0 for [[, 1 for [=[. -1: none does.
func (l *lua) bracket() int {
	if len(l.in) == 0 || l.in[0] != '[' {
		return -1
	}
	n := 1
	for n < len(l.in) && l.in[n] == '=' {
		n++
	}
	if n == len(l.in) || l.in[n] != '[' {
		return -1
	}
	return n - 1
}

func (l *lua) long(level int) (text []byte, ok bool) {
	closing := append(append([]byte{']'}, bytes.Repeat([]byte{'='}, level)...), ']')
	text, rest, ok := bytes.Cut(l.in[level+2:], closing)
	l.in = rest
	return text, ok
}

// quoted reads a string up to its quote. One that goes on over a line's end is left to Lua.
func (l *lua) quoted(quote byte) luaToken {
	t := luaToken{kind: luaString}
	for i := 1; i < len(l.in); i++ {
		switch l.in[i] {
		case quote:
			t.text = l.in[1:i]
			l.in = l.in[i+1:]
			return t
		case '\\':
			t.escaped = true
			i++
		case '\r', '\n', 0:
			return luaToken{kind: luaBad}
		}
	}
	return luaToken{kind: luaBad}
}
