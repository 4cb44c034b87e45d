package proxy

import (
	"time"

	"dragontls/proxy/netio"
)

// outbox holds what lanes brought for one client and its writer has not taken. Guarded by replyOrder.mu.
type outbox struct {
	bufs []outBuf // in their order; the last has room
	size int      // bytes in bufs
	// unsent counts those that the writer has taken too, until the client's socket has them.
	unsent int

	resend []byte // the command that is owed, which the reader has to ask again over its own connection
	below  int    // the reader wants to know when less than this is owed

	account *netio.Account // of the session
	most    int64          // bytes that may be unsent, before memory is scarce

	writers int // goroutines that drain and who calls drainNow; at most one has the turn
}

// outBuf is a page, or a chunk where there is more.
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

// append copies b. hot
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

// take gives the first buffer away.
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
	// A session with more than highUnsent bytes that its client has not taken, or more than half of its budget, submits
	// nothing more until there are fewer than lowUnsent, or an eighth of its budget.
	highUnsent = 1 << 20
	lowUnsent  = 256 << 10
)

// budget is how many bytes may be unsent now, see netio.Account.Budget.
func (o *outbox) budget() int { return int(o.account.Budget(o.most)) }

// tooMuchUnsent reports whether the session is to submit nothing more. hot
func (o *outbox) tooMuchUnsent() bool {
	return o.unsent > netio.MinBudget/2 && (o.unsent > highUnsent || o.unsent > o.budget()/2)
}

// littleUnsent reports whether a session that had too much unsent may go on.
func (o *outbox) littleUnsent() bool {
	return o.unsent < min(lowUnsent, max(netio.PageSize, o.budget()/8))
}

// receive takes n whole replies of a lane, and where half is set the beginning of another: all of one slot of the lane,
// which is one of the queue. It returns how much the client has not taken, and the turn where it was free: the caller drains
// the outbox with it (drainNow). A lane's reader calls it; it never waits. hot
func (s *session) receive(b []byte, n int, half bool, now int64) (unsent int, t writeTurn) {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, noTurn
	}
	if q.run.n == 0 && !s.nextLaneRunLocked() {
		return 0, noTurn
	}
	q.out.append(s.account(), b)
	if q.half && !half {
		q.notifyLocked()
	}
	q.half = half
	s.settleLaneLocked(n)
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
	return q.out.unsent, t
}

// nextLaneRunLocked finds the slot whose replies come now; what is ours before it goes out first.
func (s *session) nextLaneRunLocked() bool {
	q := &s.queue
	for q.localFirstLocked() {
		l := q.popLocked()
		for range l.n {
			q.out.append(s.account(), l.text)
		}
	}
	if q.slots.len() == 0 {
		return false
	}
	q.run = q.popLocked()
	return true
}

// settleLaneLocked accounts for n replies in the outbox.
func (s *session) settleLaneLocked(n int) {
	q := &s.queue
	q.run.n -= n
	q.owed -= n
	if q.owed == 0 || q.owed < q.out.below {
		q.out.below = 0
		q.notifyLocked()
	}
}
