package resp

import "bytes"

// value begins at a type byte. It goes on as long as the bytes are there, and else leaves the state behind.
func (r *Replies) value(in []byte) (size int, ended bool) { // hot
	kind := in[0]
	if !r.open {
		r.open = true
		r.kind, r.null, r.length, r.found = 0, false, -1, false
	}
	if r.chunks != (kind == ';') || r.Strict && kind == '>' && (r.depth > 0 || r.attr) {
		return r.fail(errReplyType)
	}
	switch kind {
	case '+', '-', ':', ',', '#', '(', '_':
		r.begin(kind)
		if kind == '_' && r.depth == 0 {
			r.null = true
		}
		r.lineKind, r.lineLen, r.cr = kind, 0, false
		r.state = inLine
		size, ended = r.line(in[1:])
		return size + 1, ended
	case '$', '*', '!', '=', '%', '~', '>':
		r.begin(kind)
	case '|', ';', '.':
	default:
		return r.fail(errReplyType)
	}
	length, size, ok := replyHeader(in)
	if !ok {
		return r.fail(errReplyHeader)
	}
	if size == 0 {
		r.state = inHeader
		r.lineLen = copy(r.kept[:], in) // an incomplete header is shorter than maxDigits and four more
		return len(in), false
	}
	return r.header(in, kind, length, size)
}

// begin notes the start of a value that is no attribute.
func (r *Replies) begin(kind byte) {
	r.attr = false
	if r.depth == 0 {
		r.kind = kind
	}
}

// cutHeader goes on with a header of which kept[:lineLen] was at the end of the input before.
func (r *Replies) cutHeader(in []byte) (size int, ended bool) {
	for i, b := range in {
		r.kept[r.lineLen] = b
		r.lineLen++
		if b != '\n' && r.lineLen < maxDigits+4 {
			continue
		}
		length, size, ok := replyHeader(r.kept[:r.lineLen])
		if !ok || size == 0 {
			return r.fail(errReplyHeader)
		}
		r.state = atValue
		_, ended = r.header(nil, r.kept[0], length, size)
		return i + 1, ended
	}
	if _, _, ok := replyHeader(r.kept[:r.lineLen]); !ok {
		return r.fail(errReplyHeader)
	}
	return len(in), false
}

// header acts on a complete header line of size bytes; in holds it and what follows, or is nil when it was cut.
func (r *Replies) header(in []byte, kind byte, length int64, size int) (consumed int, ended bool) { // hot
	if r.depth == 0 && kind == r.kind && length >= 0 {
		r.length = length
	}
	switch kind {
	case '$', '!', '=':
		if kind == '$' && length == nullLength {
			r.null = r.null || r.depth == 0
			return size, true
		}
		if kind == '$' && length == streamedLength {
			r.chunks = true
			return size, false
		}
		if length < 0 {
			return r.fail(errReplyHeader)
		}
		r.rest = length + 2
		r.state = inBulk
	case ';':
		if length < 0 {
			return r.fail(errReplyHeader)
		}
		if length == 0 {
			r.chunks = false
			return size, true
		}
		r.rest = length + 2
		r.state = inBulk
	case '.':
		return size, r.endStreamed()
	default:
		return size, r.aggregate(kind, length)
	}
	if in == nil {
		return size, false
	}
	consumed, ended = r.bulk(in[size:])
	return size + consumed, ended
}

// aggregate opens * % ~ > or an attribute. True: it is complete, having no elements.
func (r *Replies) aggregate(kind byte, length int64) (ended bool) {
	l := level{left: length, attr: kind == '|'}
	switch {
	case kind == '*' && length == nullLength:
		r.null = r.null || r.depth == 0
		return true
	case length == streamedLength && !l.attr:
		l = level{streamed: true, pairs: kind == '%'}
	case length < 0:
		r.failure = errReplyHeader
		return false
	case length == 0:
		r.attr = l.attr
		return !l.attr
	case kind == '%' || l.attr:
		l.left *= 2
	}
	r.push(l)
	return false
}

// endStreamed takes the '.' that ends a streamed aggregate.
func (r *Replies) endStreamed() (ended bool) {
	if r.attr || r.depth == 0 {
		r.failure = errReplyType
		return false
	}
	l := r.top()
	if !l.streamed || l.pairs && l.left%2 != 0 {
		r.failure = errReplyType
		return false
	}
	r.depth--
	return true
}

// bulk passes over a bulk's content and its CR LF.
func (r *Replies) bulk(in []byte) (size int, ended bool) { // hot
	if content := r.rest - 2; content > 0 {
		size = int(min(content, int64(len(in))))
		r.rest -= int64(size)
	}
	for ; size < len(in) && r.rest > 0; size++ {
		if in[size] != "\n\r"[r.rest-1] {
			return r.fail(errReplyBulk)
		}
		r.rest--
	}
	if r.rest > 0 {
		return size, false
	}
	r.state = atValue
	return size, !r.chunks
}

// line goes on inside a line, up to CR LF.
func (r *Replies) line(in []byte) (size int, ended bool) { // hot
	for size < len(in) {
		if r.cr {
			r.cr = false
			if in[size] == '\n' {
				r.state = atValue
				if r.Strict && !r.validScalar() {
					return r.fail(errReplyScalar)
				}
				if r.lineKind == '-' && r.depth == 1 && r.kind == '*' && r.Sought != nil && !r.found {
					r.found = r.Sought(r.kept[:min(r.lineLen, keptLine)])
				}
				return size + 1, true
			}
			if r.Strict {
				return r.fail(errReplyBare)
			}
			if !r.take(carriageReturn) {
				return 0, false
			}
		}
		i := bytes.IndexByte(in[size:], '\r')
		r.cr = i >= 0
		if i < 0 {
			i = len(in) - size
		}
		if !r.take(in[size : size+i]) {
			return 0, false
		}
		size += i
		if r.cr {
			size++
		}
	}
	return size, false
}

var carriageReturn = []byte{'\r'}

// take notes a piece of a line's content.
func (r *Replies) take(piece []byte) bool { // hot
	if r.Strict && !r.validPiece(piece) {
		return false
	}
	if r.lineLen < keptLine {
		copy(r.kept[r.lineLen:], piece)
	}
	r.lineLen += len(piece)
	if r.lineLen > maxLine {
		r.failure = errReplyLine
		return false
	}
	return true
}
