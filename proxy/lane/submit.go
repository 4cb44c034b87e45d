package lane

import (
	"math/rand/v2"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
)

// Submit hands the session's batch to the lane, whole or not at all. After Wait the session has a place among the waiters,
// until its next Submit or StopWaiting. The session's reader calls it. hot
func (l *Lane) Submit(s *Seat, b *Batch, now clock.Instant) Result {
	t := l.take(s, b, now)
	switch {
	case t.direct:
		l.writeOne(b, t.out)
	case t.start:
		l.wakeWriter()
	}
	if t.turn != nil {
		t.turn.Release()
	}
	switch {
	case t.result == Gone:
		l.set.remove(l) // the lane itself does this only when it ends, and until then no session should choose it
	case t.result == Submitted && (l.late.Load() || l.crowded()):
		l.set.growWith(l)
	}
	return t.result
}

// taken is what the caller of take has left to do once the lane's lock is free.
type taken struct {
	result Result
	direct bool // the caller has the token and must write out
	out    []byte
	start  bool // the token was free and now belongs to the writer, which the caller must wake, unless direct is set
	turn   Turn // of the session, or nil; the caller must release it
}

// take enters the session's batch into its reply order and into the lane. A panic in take leaves the slots of both in doubt,
// so it poisons the lane, once the lock is free. hot
func (l *Lane) take(s *Seat, b *Batch, now clock.Instant) (t taken) {
	defer l.poisonOnPanic()
	size := len(b.Bytes)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.state != open:
		return taken{result: Gone}
	case s.full(b.Replies, size):
		return taken{result: Share}
	case (l.waiters.Len() > 0 || !l.fitsLocked(b.Replies, size)) && !l.roomLocked(s, b.Replies, size):
		return taken{result: Wait}
	}
	first, room, idle := l.slots.Len(), l.slots.Cap(), l.commands == 0
	if t.result, t.turn = s.Rider.Admit(Entry{l, s, now}, now); t.result != Submitted {
		l.wakeWaiterLocked() // this session may have been first in the queue, and the next one may fit
		return t
	}
	// The session writes itself only on an idle lane, or a large batch. Otherwise the lane's writer writes as soon as it runs: what other
	// sessions submit until then goes out in the same write.
	t.direct = (first == 0 && idle || size >= largeBatch) && !l.token && l.up.TLS == nil
	if idle {
		l.pulse.begin(now)
	}
	if l.slots.Len() > first {
		l.slots.At(first).bytes = size // the batch goes out whole
	}
	if s.frameLen = 0; b.Resendable && b.Replies == 1 && size <= len(s.frame) {
		s.frameLen = copy(s.frame[:], b.Bytes)
	}
	l.given += uint64(size)
	l.bytes += size
	l.unnonced += b.Replies
	l.loadLocked()
	s.count(b.Replies, size)
	l.wakeWaiterLocked()
	if now >= l.pulse.due {
		l.judgePulseLocked(now)
	}
	t.out = b.Bytes
	if l.unnonced >= nonceCommands || now.Sub(l.nonceAt) >= nonceInterval {
		t.out = l.appendNonceLocked(t.out, now)
	}
	t.start = !l.token
	l.token = true
	if t.direct {
		l.passed = l.given
	} else {
		l.out.take(b, t.out)
	}
	if !t.direct || l.slots.Cap() != room {
		l.countLocked()
	}
	return t
}

// Entry is where Rider.Admit enters a batch into a lane.
type Entry struct {
	lane *Lane
	seat *Seat
	now  clock.Instant
}

// Owe enters a run of commands that are owed n replies. tx means that they are a whole transaction. hot
func (e Entry) Owe(n int, tx bool) {
	l := e.lane
	l.slots.Push(slot{seat: e.seat, n: n, at: l.given, tx: tx, sent: e.now}, 16)
	l.commands += n
}

// appendNonceLocked appends an ECHO of a random word to a batch, and a slot for its reply, which must return in exactly that
// place.
func (l *Lane) appendNonceLocked(out []byte, now clock.Instant) []byte {
	word := rand.Uint64()
	nonce := backend.AppendNonce(make([]byte, 0, backend.NonceSize), word)
	l.slots.Push(slot{n: 1, at: l.given, nonce: word, sent: now}, 16)
	l.given += uint64(backend.NonceSize)
	l.unnonced, l.nonceAt = 0, now
	return append(out, nonce...)
}

// writeOne writes a batch straight from the session's reader, which has the token. It puts what the kernel does not take at
// once before everything else that waits, and gives the token to the lane's writer if anything waits, or back to the lane. A
// panic poisons the lane. hot
func (l *Lane) writeOne(from *Batch, b []byte) {
	defer l.poisonOnPanic()
	n, err := l.up.Socket.WriteNow(b)
	l.mu.Lock()
	if n < len(b) && err == nil && l.state != closed {
		l.out.putFirst(from, b[n:])
		l.countLocked()
	}
	if err != nil {
		l.writeFailedLocked(err)
	}
	waits := !l.out.empty() && l.state < failed
	l.token = waits
	over := l.overLocked()
	l.mu.Unlock()
	if waits {
		l.wakeWriter()
	}
	if over {
		l.up.Close()
	}
}

// poisonOnPanic is deferred by take and writeOne. After a panic it poisons the lane and lets the panic continue. The lock must be
// free by then.
func (l *Lane) poisonOnPanic() {
	if v := recover(); v != nil {
		l.poison()
		panic(v)
	}
}

// wakeWriter hands the token to the lane's writer. Only the holder of the token may call it, once, so it never waits.
func (l *Lane) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
		panic("the token of a lane was handed on twice")
	}
}
