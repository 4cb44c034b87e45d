package resp

import "bytes"

// validPiece checks what Strict wants of a piece of a line; r.lineLen bytes came before it.
func (r *Replies) validPiece(piece []byte) bool {
	if r.lineKind == ':' || r.lineKind == '(' {
		for i, b := range piece {
			if b-'0' > 9 && (i+r.lineLen > 0 || b != '-' && b != '+') {
				r.failure = errReplyScalar
				return false
			}
		}
		return true
	}
	if bytes.IndexByte(piece, '\n') >= 0 {
		r.failure = errReplyBare
		return false
	}
	return true
}

// validScalar checks what Strict wants of a whole line that is a number, boolean or null.
func (r *Replies) validScalar() bool {
	kept := r.kept[:min(r.lineLen, keptLine)]
	switch r.lineKind {
	case ':':
		return r.lineLen <= 20 && endsInDigit(kept)
	case '(':
		return endsInDigit(kept)
	case ',':
		return r.lineLen <= keptLine && validDouble(kept)
	case '#':
		return r.lineLen == 1 && (kept[0] == 't' || kept[0] == 'f')
	case '_':
		return r.lineLen == 0
	}
	return true
}

func endsInDigit(b []byte) bool { return len(b) > 0 && b[len(b)-1]-'0' <= 9 }

// validDouble is cheap: letters and places of a double, not its grammar.
func validDouble(b []byte) bool {
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		b = b[1:]
	}
	if string(b) == "inf" || string(b) == "nan" {
		return true
	}
	for _, c := range b {
		if c-'0' > 9 && c != '.' && c != 'e' && c != 'E' && c != '-' && c != '+' {
			return false
		}
	}
	return len(b) > 0 && b[0]-'0' <= 9
}
