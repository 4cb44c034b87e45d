package lane

import (
	"sync/atomic"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
)

// shunned says which sessions and commands avoid a lane, although it is open. Its connection may be of no use any more, while new ones
// are: a client that reconnects for that reason must get another lane, or its reconnecting would cure nothing.
type shunned struct {
	// Sessions that began after one of these times do not ride the lane; 0 means that there is no such time.
	doubted   clock.Atomic // the lane may lead to a replica, see Sets.Suspect. It retires soon
	abandoned clock.Atomic // it owes a reply to a client that has left, see Abandon

	abandonedAt uint64 // what writes.given was when such a client left last; guarded by Lane.mu

	held atomic.Bool // its oldest command keeps all others waiting, while the backend serves other connections, see Watch
}

// mayCarry reports whether a session that began at the given time may ride the lane. hot
func (l *Lane) mayCarry(begun clock.Instant) bool {
	d, a := l.doubted.Load(), l.abandoned.Load()
	return (d == 0 || begun <= d) && (a == 0 || begun <= a)
}

// Suspect tells the backend that up has brought an answer of which backend.AnswersAsReplica holds. If that begins a move,
// no session that begins from here on rides a lane that is open now.
func (a *Sets) Suspect(up *backend.Conn) {
	if !a.c.Backend.Suspect(up) {
		return
	}
	now := a.c.Now()
	for _, l := range a.Live() {
		l.doubted.CompareAndSwap(0, now)
	}
}

// Abandon is called when the client of a session has left, or sends nothing more. As long as the lane owes what it owed at that time, it
// carries no session that has begun since the oldest of it was sent: the client may have left because no reply came, and be back. The
// session's reader calls it.
func (l *Lane) Abandon(s *Seat) {
	if s.commands.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if head := l.headLocked(); head != nil {
		l.abandoned.Store(head.sent)
		l.abandonedAt = l.given
	}
}

// headLocked returns the slot whose replies are due first, or nil if the lane owes none.
func (l *Lane) headLocked() *slot {
	switch {
	case l.in.open:
		return &l.in.cur
	case l.slots.Len() > 0:
		return l.slots.At(0)
	}
	return nil
}

// Held reports whether the oldest command on the lane keeps all others waiting, while the backend serves other connections. hot
func (l *Lane) Held() bool { return l.held.Load() }

// easeLocked ends what made sessions avoid the lane: its oldest reply has come whole and, as for Abandon, those that were owed then.
func (l *Lane) easeLocked() {
	if l.held.Load() {
		l.held.Store(false)
	}
	if l.abandoned.Load() != 0 && (l.slots.Len() == 0 || l.slots.At(0).at >= l.abandonedAt) {
		l.abandoned.Store(0)
	}
}
