package proxy

import "dragontls/proxy/netio"

// outbox holds the bytes that lanes have brought for one client and that no writer has taken yet. Guarded by replyOrder.mu.
type outbox struct {
	bufs []outBuf // in order; only the last may have room
	size int      // bytes in bufs
	// unsent counts the bytes in bufs, and those that a writer has taken until the client's socket has them.
	unsent int

	resend []byte // the owed command, if the session's reader is to send it again over the own connection; see WantResend
	below  int    // the session's reader is woken when fewer replies than this are owed

	account *netio.Account // of the session
	most    int64          // how many bytes may be unsent while memory is plentiful

	writers int // goroutines that run drain or DrainNow; at most one has the turn
}

// outBuf is a page or, for more bytes, a chunk, of which n bytes are filled.
type outBuf struct {
	page  *netio.Page
	chunk *netio.Chunk
	n     int
}

func (b *outBuf) room() []byte {
	if b.chunk != nil {
		return b.chunk[b.n:]
	}
	return b.page[b.n:]
}

func (b *outBuf) bytes() []byte {
	if b.chunk != nil {
		return b.chunk[:b.n]
	}
	return b.page[:b.n]
}

// take removes the first buffer and returns it. The caller must free it.
func (o *outbox) take() (b outBuf, ok bool) {
	if len(o.bufs) == 0 {
		return outBuf{}, false
	}
	b = o.bufs[0]
	rest := copy(o.bufs, o.bufs[1:])
	o.bufs[rest] = outBuf{}
	o.bufs = o.bufs[:rest]
	if rest == 0 && cap(o.bufs) > 4 {
		o.bufs = nil
	}
	o.size -= b.n
	return b, true
}

func (o *outbox) clear(to *netio.Account) {
	for i := range o.bufs {
		o.bufs[i].free(to)
	}
	o.bufs, o.size, o.unsent = nil, 0, 0
}

const (
	// A session submits nothing more while its client leaves more than highUnsent bytes or half of its budget unsent,
	// whichever is less. It goes on when fewer than lowUnsent bytes or an eighth of the budget are left, whichever is less.
	highUnsent = 1 << 20
	lowUnsent  = 256 << 10
)

// budget returns how many bytes may be unsent now, see netio.Account.Budget.
func (o *outbox) budget() int { return int(o.account.Budget(o.most)) }

// tooMuchUnsent reports whether the session must submit nothing more for now. hot
func (o *outbox) tooMuchUnsent() bool {
	return o.unsent > netio.MinBudget/2 && o.unsent > min(highUnsent, o.budget()/2)
}

// littleUnsent reports whether a session that had too much unsent may go on.
func (o *outbox) littleUnsent() bool {
	return o.unsent < min(lowUnsent, max(netio.PageSize, o.budget()/8))
}
