package resp

const (
	maxLine   = 128 << 10 // bytes of a line's content; Dragonfly quotes whole arguments in errors, 100 KB were seen
	maxDepth  = 1024      // nested aggregates
	keptLine  = 64        // bytes of a line that Line returns
	maxDigits = 18        // of a length or count: twice as much (a map) stays within int64
)

// Replies frames what a backend sends, RESP2 and RESP3. One goroutine owns it. The zero value works.
type Replies struct {
	// Strict refuses what a well-behaved backend never sends: a bare CR or LF in a line, and numbers, booleans and
	// nulls that are none. Where replies are matched by order alone, such a byte means that the order is lost. It also
	// refuses a push inside a reply, or between a reply and its attributes: Redis 7.0 writes one into the middle of an
	// array (of EXEC, of ZPOPMIN) that does not count it, so that an element of the array would be taken for the next
	// reply.
	Strict bool
	// Sought is called with the first 64 bytes of each error that is an element of a top-level array, see Found. It must not
	// keep them. nil: nothing is sought.
	Sought func(line []byte) bool

	state  replyState
	open   bool
	attr   bool // an attribute ended: its value must follow
	chunks bool // inside a streamed string: only ';' may follow
	found  bool // see Found
	kind   byte
	null   bool
	length int64

	rest int64 // bytes of the open bulk, CR LF included

	lineKind byte
	cr       bool // the open line's last byte was a CR
	lineLen  int
	kept     [keptLine]byte // of the line or header that is read

	depth   int
	inner   [16]level
	outer   []level // levels 16 and deeper; given back with the frame
	failure error
}

type replyState uint8

const (
	atValue replyState = iota // a type byte comes next
	inLine
	inHeader // kept[:lineLen] is what there is of it
	inBulk
)

// A level is an aggregate whose elements are not yet complete.
type level struct {
	left     int64 // elements to come; counted up when streamed
	attr     bool  // the elements of an attribute, which itself is no element
	streamed bool  // ended by '.'
	pairs    bool  // a streamed map: an odd number of elements is malformed
}

// Next consumes in up to the end of the current top-level frame, wherever the input is cut. done: that frame ended at
// in[:n]; otherwise n is len(in). err wraps ErrMalformed and is returned again by every later call.
func (r *Replies) Next(in []byte) (n int, done bool, err error) { // hot
	if r.state == atValue && !r.open && r.failure == nil {
		if n = r.short(in); n > 0 {
			return n, true, nil
		}
	}
	for n < len(in) {
		if r.failure != nil {
			return n, false, r.failure
		}
		var size int
		var ended bool
		switch r.state {
		case atValue:
			size, ended = r.value(in[n:])
		case inLine:
			size, ended = r.line(in[n:])
		case inHeader:
			size, ended = r.cutHeader(in[n:])
		case inBulk:
			size, ended = r.bulk(in[n:])
		}
		n += size
		if ended && r.failure == nil && r.valueEnded() {
			r.open = false
			r.outer = nil
			return n, true, nil
		}
	}
	return n, false, r.failure
}

// short is the quick way for what most replies are: a whole +OK, short integer, bulk or null bulk as a top-level frame. It
// returns 0 if the reply must take the long way.
func (r *Replies) short(in []byte) (n int) { // hot
	if len(in) < 4 {
		return 0
	}
	switch in[0] {
	case '+':
		if len(in) < 5 || in[1] != 'O' || in[2] != 'K' || in[3] != '\r' || in[4] != '\n' {
			return 0
		}
		r.kept[0], r.kept[1], r.lineLen = 'O', 'K', 2
		r.kind, r.null, r.length = '+', false, -1
		return 5
	case ':':
		i := 1
		for i < len(in) && i < 20 && in[i]-'0' <= 9 {
			i++
		}
		if i == 1 || i+1 >= len(in) || in[i] != '\r' || in[i+1] != '\n' {
			return 0
		}
		r.kind, r.null, r.length = ':', false, -1
		return i + 2
	case '$':
		length, size, ok := replyHeader(in)
		if !ok || size == 0 || length < 0 || int64(len(in)-size) < length+2 {
			if length == nullLength {
				r.kind, r.null, r.length = '$', true, -1
				return size
			}
			return 0
		}
		n = size + int(length)
		if in[n] != '\r' || in[n+1] != '\n' {
			return 0
		}
		r.kind, r.null, r.length = '$', false, length
		return n + 2
	}
	return 0
}

const (
	nullLength     = -1
	streamedLength = -2
	noLength       = -3 // of a lone '.'
)

// replyHeader reads a line like $12, $-1, $? or a lone '.'. size 0 and ok: so far well formed, but not all there.
func replyHeader(in []byte) (length int64, size int, ok bool) { // hot
	i := 1
	for i < len(in) && i <= maxDigits && in[i]-'0' <= 9 {
		length = length*10 + int64(in[i]-'0')
		i++
	}
	switch {
	case i > 2 && in[1] == '0', i > 1 && in[0] == '.':
		return 0, 0, false
	case i > 1:
	case in[0] == '.':
		length = noLength
	case i == len(in):
		return 0, 0, true
	case in[i] == '?':
		length, i = streamedLength, 2
	case in[i] == '-' && i+1 == len(in):
		return 0, 0, true
	case in[i] == '-' && in[i+1] == '1':
		length, i = nullLength, 3
	default:
		return 0, 0, false
	}
	if i < len(in) && in[i] != '\r' || i+1 < len(in) && in[i+1] != '\n' {
		return 0, 0, false
	}
	if i+1 >= len(in) {
		return 0, 0, true
	}
	return length, i + 2, true
}

// Open reports whether some of a frame was consumed and its end was not.
func (r *Replies) Open() bool { return r.open }

// Kind returns the type byte of the last started top-level value: one of + - : $ * _ # , ( ! = % ~ >. An attribute ('|')
// belongs to the frame but is not its kind: 0 until its value starts.
func (r *Replies) Kind() byte { return r.kind }

// Line returns, for a '+' or '-' that is done, the first 64 bytes of its line without type byte and CR LF. They are
// valid until the next call of Next.
func (r *Replies) Line() []byte {
	if r.open || r.kind != '+' && r.kind != '-' {
		return nil
	}
	return r.kept[:min(r.lineLen, keptLine)]
}

// Found reports whether the last started frame is an array of which Sought has accepted an element. An element that is nested
// deeper, or is no error, is not looked at: it may be a value that a client has stored.
func (r *Replies) Found() bool { return r.found && r.kind == '*' }

// Null reports whether the top-level value is '_', '$-1' or '*-1'.
func (r *Replies) Null() bool { return r.null }

// Len returns the declared count of a top-level '*', '%' (pairs), '~' or '>', or the bytes of a '$', '!' or '=', as soon
// as its header was read; -1 when null, streamed or unknown.
func (r *Replies) Len() int64 { return r.length }

// fail is for the places that report a value's size and end: Next sees the failure.
func (r *Replies) fail(err error) (size int, ended bool) {
	r.failure = err
	return 0, false
}

// valueEnded counts a complete value, and the aggregates that are complete with it. True: so is the frame.
func (r *Replies) valueEnded() bool { // hot
	for r.depth > 0 {
		l := r.top()
		if l.streamed {
			l.left++
			return false
		}
		if l.left--; l.left > 0 {
			return false
		}
		r.depth--
		if l.attr {
			r.attr = true
			return false
		}
	}
	return true
}

func (r *Replies) top() *level {
	if r.depth <= len(r.inner) {
		return &r.inner[r.depth-1]
	}
	return &r.outer[r.depth-1-len(r.inner)]
}

func (r *Replies) push(l level) bool {
	if r.depth == maxDepth {
		r.failure = errReplyDepth
		return false
	}
	r.depth++
	if i := r.depth - 1 - len(r.inner); i >= 0 {
		r.outer = append(r.outer[:i], l)
	} else {
		r.inner[r.depth-1] = l
	}
	return true
}
