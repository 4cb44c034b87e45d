package proxy

import (
	"sync"
	"sync/atomic"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
	"dragontls/proxy/ring"
)

// slotKind says what takes the place that a slot keeps.
type slotKind uint8

const (
	slotReplies   slotKind = iota // n replies of the backend, passed on
	slotLocal                     // the same local reply, n times
	slotFinal                     // the last local reply; the session ends after it
	slotExec                      // the reply to the DISCARD that is sent in place of the EXEC of a doomed transaction
	slotReset                     // the reply to RESET
	slotQuit                      // the reply to QUIT, or to the EXEC that runs a queued QUIT
	slotUncounted                 // no reply but a mark: from here on replies are not counted
	slotNoted                     // a reply that may change what is known about the session, see note
)

// slot is the place of one or more replies that a client waits for.
type slot struct {
	kind     slotKind
	blocking bool // the command may wait for other clients
	tx       bool // with slotReplies: a whole transaction, from MULTI to EXEC
	proves   bool // a reply other than an error proves the session
	n        int
	text     []byte        // with slotLocal and slotFinal; never modified, shared by sessions
	reason   closeReason   // with slotFinal
	sent     clock.Instant // when the slot entered the queue
	note     *note         // with slotNoted; may be set with slotQuit
}

func (k slotKind) local() bool { return k == slotLocal || k == slotFinal }

// isAwaited reports whether the session's reader depends on the reply: no local one can take its place.
func (l slot) isAwaited() bool {
	return l.kind == slotExec || l.kind == slotReset || l.kind == slotQuit || l.kind == slotUncounted
}

// These values say whether the replies of a session's own connection are counted. After SUBSCRIBE, MONITOR or CLIENT REPLY
// they cannot be.
const (
	counted       int32 = iota
	countedBefore       // the session's reader has taken such a command: only replies to what it took before are counted
	uncounted           // the mark slotUncounted was popped: replies are passed on as they come
)

// uncounting reports whether replies to what the client sends now are not counted any more.
func (s *session) uncounting() bool { return s.queue.counting.Load() != counted }

// uncounted reports whether the replies that come now are not counted. The caller must hold q.mu, or be the pump.
func (q *replyOrder) uncounted() bool { return q.counting.Load() == uncounted }

// maxSlots bounds the slots in a session's queue. With so many, the session's reader waits until the backend has answered
// some.
const maxSlots = 4096

// replyOrder is the queue of a session: it keeps the order of what the client is owed. The session's reader pushes slots.
// The pump, the readers of lanes and the holder of the turn pop them. Only the holder of the turn may write to the client,
// and nobody writes while holding the lock.
type replyOrder struct {
	account *netio.Account // of the session
	mu      sync.Mutex
	changed sync.Cond // broadcast when something below has changed for which a goroutine may wait
	slots   ring.Ring[slot]

	run      slot         // the slot whose replies arrive now; run.n of them are still due
	owed     int          // replies that the backend owes, those of run included
	blocked  int          // slots of blocking commands among them
	turn     bool         // a goroutine has the right to write to the client; the pump keeps it while a frame is written in part
	closed   bool         // the session has ended
	answered bool         // the backend has answered at least once
	full     bool         // maxSlots slots were there when the session's reader last pushed some; only the reader uses it
	counting atomic.Int32 // counted, countedBefore or uncounted
	ofLanes

	wake func() // set while the session's reader waits in a read inside hold; interrupts that read
}

// ofLanes is what a session's reply order knows of its lane. Guarded by replyOrder.mu.
type ofLanes struct {
	onLane bool    // a lane owes what is owed, not the own connection
	half   bool    // a lane has brought only the beginning of a reply: the pump must not write until the rest has come
	room   bool    // the lane for which the session's reader waits may have room
	out    *outbox // replies that lanes brought; it holds some only while somebody has the turn
}

func (q *replyOrder) init(a *netio.Account) { q.account, q.changed.L = a, &q.mu }

// grownLocked counts the memory of the queue, which had room for before slots when it was last counted.
func (q *replyOrder) grownLocked(before int) {
	q.account.Hold(slotsCost(q.slots.Cap()) - slotsCost(before))
}

// nextLocal pops the local reply that is due, for the holder of the turn to write. It returns false if none is due, or if
// the outbox must be written first.
func (q *replyOrder) nextLocal() (slot, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.out.size > 0 || !q.localFirstLocked() {
		return slot{}, false
	}
	return q.popLocked(), true
}

func (q *replyOrder) notify() {
	q.mu.Lock()
	q.notifyLocked()
	q.mu.Unlock()
}

func (q *replyOrder) close() {
	q.mu.Lock()
	q.closed = true
	q.notifyLocked()
	q.mu.Unlock()
}

// forget drops all slots and the last owed reply, which will never come whole. The caller has waited until nothing else is
// owed. It returns false if somebody has the turn, because that reply may be half written.
func (q *replyOrder) forget() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.turn {
		return false
	}
	q.dropSlotsLocked()
	q.run, q.owed, q.blocked = slot{}, 0, 0
	return true
}

// dropSlotsLocked drops all slots except run, and their memory.
func (q *replyOrder) dropSlotsLocked() {
	for i := range q.slots.Len() {
		if q.slots.At(i).note != nil {
			q.account.Hold(-noteCost)
		}
	}
	q.account.Hold(-slotsCost(q.slots.Cap()))
	q.slots.Drop()
}

// drop drops all slots of a session that has ended.
func (q *replyOrder) drop() {
	q.mu.Lock()
	q.dropSlotsLocked()
	q.mu.Unlock()
}

// waitLocked waits until cond, which it calls with the lock held, returns true. It returns false if the session has ended.
func (q *replyOrder) waitLocked(cond func() bool) bool {
	for !q.closed && !cond() {
		q.changed.Wait()
	}
	return !q.closed
}
