package command

import "bytes"

// Kinds of tokens. A punctuation mark is of the kind of its byte.
const (
	luaEnd    = 0
	luaBad    = 1   // a string or comment that is not closed, or bytes that no script has, such as bytecode
	luaName   = 'n' // a name or a keyword
	luaString = 's' // a string in quotes
	luaLong   = 'l' // a string in long brackets
)

// luaToken is a token of a body. Its text is a part of the body.
type luaToken struct {
	kind    byte
	text    []byte // of a name or of a string without its quotes
	escaped bool   // the string holds a backslash
}

// lua cuts a body into tokens as Lua does. It returns numbers as single bytes and names, since they do not matter here.
type lua struct {
	in []byte // what is not cut yet
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

// skipBlanks skips blanks and comments. It returns false if a comment is not closed.
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

// bracket returns the level of the long bracket that opens here, 0 for [[ and 1 for [=[, or -1 if none does.
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

// long reads a long string of a level up to its closing bracket. ok is false if it is not closed.
func (l *lua) long(level int) (text []byte, ok bool) {
	closing := append(append([]byte{']'}, bytes.Repeat([]byte{'='}, level)...), ']')
	text, rest, ok := bytes.Cut(l.in[level+2:], closing)
	l.in = rest
	return text, ok
}

// quoted reads a string up to its closing quote. With the end of a line in it, unless a backslash precedes that, the token is
// luaBad, even where Lua would accept it.
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
