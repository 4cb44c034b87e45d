package proxy

import (
	"time"

	"dragontls/proxy/netio"
)

// outbox holds what lanes brought for one client and its writer has not taken. Guarded by replyQueue.mu.
type outbox struct {
	bufs []outBuf // in their order; the last has room
	size int      // bytes in bufs
	// unsent counts those that the writer has taken too, until the client's socket has them.
	unsent int

	refetch []byte // the command that is owed, which the reader has to ask again over its own connection
	below   int    // the reader wants to know when less than this is owed

	account *netio.Account // of the session
	most    int64          // bytes that may be unsent, before memory is scarce

	drain   func() // the writer goroutine
	writers int    // those goroutines and who calls drainNow; at most one has the turn
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
// which is one of the queue. It returns how much the client has not taken. mine: the caller has the turn now and calls
// drainNow. A lane's reader calls it; it never waits. hot
func (s *session) receive(b []byte, n int, half bool, now int64) (unsent int, mine bool) {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, false
	}
	if q.run.n == 0 && !s.nextLaneRunLocked() {
		return 0, false
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
		q.turn, mine = true, true
		q.out.writers++
	}
	return q.out.unsent, mine
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
	if q.size == 0 {
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

// drain is the writer goroutine: it has the turn, writes what is in the outbox, and gives the turn up.
func (s *session) drain() { s.writeOutbox(true) }

// drainNow does so for a lane's reader, which must not wait: what would is left to a writer goroutine. hot
func (s *session) drainNow() {
	if s.writeOutbox(false) {
		go s.queue.out.drain()
	}
}

// writeOutbox does the work of a writer. left: the turn is still its own, and the rest has to wait. hot
func (s *session) writeOutbox(wait bool) (left bool) {
	over := false
	defer func() {
		if v := recover(); v != nil {
			s.recovered(v)
			s.dropOut()
		}
		if !left && !over {
			s.queue.writerEnded()
		}
	}()
	if wait && s.writeFailed(s.client.sock.Flush()) != nil {
		s.dropOut()
		return false
	}
	for wrote := 0; ; {
		b, next := s.nextOut(wrote, wait)
		switch next {
		case outEnded:
			return false // with the turn: nobody writes anything behind what was dropped
		case outLater:
			return true
		case outOver:
			over = true
			return false
		case outLocals:
			if s.writeLocals() != nil {
				s.dropOut()
			}
			return false
		}
		wrote = b.n
		if s.writeBuf(b, wait) != nil {
			s.dropOut()
			return false
		}
	}
}

// writeBuf writes b and gives it back, whatever comes of the write. hot
func (s *session) writeBuf(b outBuf, wait bool) error {
	defer b.free(s.account())
	if wait {
		return s.write(b.bytes())
	}
	return s.writeNow(b.bytes())
}

type nextOut uint8

const (
	outBytes  nextOut = iota
	outLocals         // a reply of ours
	outLater          // what may not be written now
	outOver           // nothing: the turn is given up, and the writer has ended
	outEnded          // nothing any more
)

// nextOut accounts for what a writer wrote, and gives it what comes next. hot
func (s *session) nextOut(wrote int, wait bool) (outBuf, nextOut) {
	later := !wait && s.client.sock.Pending()
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sentLocked(wrote)
	if q.closed {
		q.out.clear(s.account())
		return outBuf{}, outEnded
	}
	if later || !wait && q.out.size > netio.MaxWriteNow {
		return outBuf{}, outLater
	}
	if b, ok := q.out.take(); ok {
		return b, outBytes
	}
	if q.localFirstLocked() {
		if wait {
			return outBuf{}, outLocals
		}
		return outBuf{}, outLater
	}
	q.turn = false
	q.out.writers--
	q.notifyLocked()
	return outBuf{}, outOver
}

// sentLocked accounts for bytes that the client's socket has taken. hot
func (q *replyQueue) sentLocked(n int) {
	before := q.out.unsent
	q.out.unsent = max(0, before-n)
	if n > 0 && before > netio.PageSize {
		q.notifyLocked()
	}
}

// dropOut gives the turn up behind a failed write: nothing is written any more.
func (s *session) dropOut() {
	q := &s.queue
	q.mu.Lock()
	q.out.clear(s.account())
	q.turn = false
	q.notifyLocked()
	q.mu.Unlock()
}

// startWriterLocked hands the turn to a writer goroutine, which ends with what there is to write; finish waits for it.
func (q *replyQueue) startWriterLocked() {
	q.out.writers++
	go q.out.drain()
}

func (q *replyQueue) writerEnded() {
	q.mu.Lock()
	q.out.writers--
	q.notifyLocked()
	q.mu.Unlock()
}

// awaitWriters waits for the writer goroutines of a session that has ended and whose socket is closed.
func (q *replyQueue) awaitWriters(a *netio.Account) {
	q.mu.Lock()
	for q.out.writers > 0 {
		q.changed.Wait()
	}
	q.out.clear(a)
	q.mu.Unlock()
}
