package proxy

import (
	"time"

	"dragontls/proxy/lane"
	"dragontls/proxy/netio"
)

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

func (b *outBuf) free(to *netio.Account) {
	if b.chunk != nil {
		to.FreeChunk(b.chunk)
		return
	}
	to.FreePage(b.page)
}

// append appends a copy of b, in memory that the account from lends. hot
func (o *outbox) append(from *netio.Account, b []byte) {
	o.size += len(b)
	o.unsent += len(b)
	for len(b) > 0 {
		if n := len(o.bufs); n > 0 {
			last := &o.bufs[n-1]
			k := copy(last.room(), b)
			last.n += k
			b = b[k:]
			if len(b) == 0 {
				return
			}
		}
		if len(o.bufs) == 0 && len(b) <= netio.PageSize {
			o.bufs = append(o.bufs, outBuf{page: from.Page()})
		} else {
			o.bufs = append(o.bufs, outBuf{chunk: from.Chunk()})
		}
	}
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
	return o.unsent > netio.MinBudget/2 && (o.unsent > highUnsent || o.unsent > o.budget()/2)
}

// littleUnsent reports whether a session that had too much unsent may go on.
func (o *outbox) littleUnsent() bool {
	return o.unsent < min(lowUnsent, max(netio.PageSize, o.budget()/8))
}

// Receive puts b, which a lane has brought, into the outbox, see lane.Rider. The run that b belongs to is one slot of the
// queue. slow is true if more than the budget is unsent: the session then uses its own connection for good. hot
func (s *session) Receive(b []byte, n int, half bool, now int64) (slow bool, t lane.Turn) {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.run.n == 0 && !s.nextLaneRunLocked() {
		return false, nil
	}
	q.out.append(s.account(), b)
	if q.half && !half {
		q.notifyLocked()
	}
	q.half = half
	q.run.n -= n
	q.owed -= n
	if q.owed == 0 || q.owed < q.out.below { // the session's reader may wait for this
		q.out.below = 0
		q.notifyLocked()
	}
	if n > 0 {
		q.answered = true
		s.lastActive.Store(now)
		if q.run.n == 0 {
			s.stripe.durations.observe(time.Duration(now-q.run.sent), 1)
		}
	}
	if !q.turn {
		q.turn, t = true, writeTurn{s}
		q.out.writers++
	}
	if slow = q.out.unsent > netio.MinBudget && q.out.unsent > q.out.budget(); slow {
		s.ownUntil.Store(forGood)
	}
	return slow, t
}

// nextLaneRunLocked makes run the slot whose replies come now. It first puts the local replies before it into the outbox. It
// returns false if the queue has no such slot.
func (s *session) nextLaneRunLocked() bool {
	q := &s.queue
	for q.localFirstLocked() {
		l := q.popLocked()
		for range l.n {
			q.out.append(s.account(), l.text)
		}
	}
	if q.slots.Len() == 0 {
		return false
	}
	q.run, q.out.resend = q.popLocked(), nil // the command need not be sent again: here is the reply
	return true
}
