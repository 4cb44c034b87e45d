package proxy

import (
	"sync"
	"sync/atomic"

	"dragontls/proxy/netio"
)

type slotKind uint8

const (
	slotReplies   slotKind = iota // n replies of the backend, passed on
	slotLocal                     // n times a reply of ours
	slotFinal                     // the last reply of ours; the session ends behind it
	slotExec                      // DISCARD's reply, sent in place of the EXEC of a doomed transaction
	slotReset                     // RESET's reply
	slotQuit                      // QUIT's reply
	slotUncounted                 // from here on replies are not counted
	slotNoted                     // a reply that changes what is known of the session, see note
)

// slot is the place of one or more replies that a client waits for.
type slot struct {
	kind     slotKind
	blocking bool // the command may wait for other clients
	tx       bool // slotReplies: MULTI, what it holds, and EXEC
	proves   bool // an answer that is no error shows that the backend serves this session
	n        int
	text     []byte      // slotLocal, slotFinal: never modified, shared by sessions
	reason   closeReason // slotFinal
	sent     int64       // monotonic nanoseconds
	note     *note       // slotNoted
}

func (k slotKind) local() bool { return k == slotLocal || k == slotFinal }

// Whether the replies of a session's own connection are counted. After SUBSCRIBE, MONITOR or CLIENT REPLY they cannot be.
const (
	counted       int32 = iota
	countedBefore       // the reader has taken such a command: only what was taken before it is counted
	uncounted           // the pump has passed the mark: replies pass as they come
)

// uncounting reports whether replies to what the client sends now are not counted any more.
func (s *session) uncounting() bool { return s.queue.counting.Load() != counted }

// uncounted reports whether the replies that come now are not counted. Under the lock, or for the pump.
func (q *replyOrder) uncounted() bool { return q.counting.Load() == uncounted }

// maxSlots: a reader that has queued this many runs waits until the backend has answered some.
const maxSlots = 4096

// replyOrder holds the order of what one client is owed. The session's reader pushes, its pump pops.
// Whoever holds the turn may write to the client; nobody writes under the lock.
type replyOrder struct {
	account *netio.Account // of the session
	mu      sync.Mutex
	changed sync.Cond // something below changed that somebody may wait for
	slots   ring[slot]

	run      slot // the slot whose replies arrive now; run.n are still due
	owed     int  // replies of the backend due, run included
	blocked  int  // slots of blocking commands among them
	turn     bool // somebody writes to the client, or a frame is half out
	closed   bool
	answered bool // the backend has answered something, ever
	lost     bool // replies were lost with their connection; the reader has to recover
	ofLanes

	counting atomic.Int32 // counted, countedBefore or uncounted

	wake func() // set while the reader waits in a read: interrupts it
}

// ofLanes is what a session's reply order knows of its lane. Guarded by replyOrder.mu.
type ofLanes struct {
	onLane bool    // what is owed is owed by a lane
	half   bool    // a lane has brought the beginning of a reply: nothing of the own connection may follow it
	room   bool    // the lane that the reader waits for may have room
	out    *outbox // replies that lanes brought; not empty only while somebody has the turn
}

func (q *replyOrder) init(a *netio.Account) { q.account, q.changed.L = a, &q.mu }

// admitLocked pushes all slots or none, stamped with now, for a lane or for the own connection. The turn is given where
// replies of ours among them are due. hot
func (s *session) admitLocked(slots []slot, now int64, lane bool) (submission, writeTurn) {
	q := &s.queue
	switch {
	case q.closed:
		return submitNever, noTurn
	case q.lost:
		return submitLost, noTurn
	case lane && q.owed > 0 && !q.onLane: // since wantResend
		return submitOwn, noTurn
	case q.out.tooMuchUnsent():
		return submitLater, noTurn
	}
	q.onLane = lane
	for i := range slots {
		slots[i].sent = now
		q.pushLocked(slots[i])
	}
	return submitted, s.turnForLocalsLocked()
}

// admitToLane is admitLocked for a lane. hot
func (s *session) admitToLane(slots []slot, now int64) (submission, writeTurn) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.admitLocked(slots, now, true)
}

func (q *replyOrder) pushLocked(s slot) {
	before := q.slots.cap()
	q.slots.push(s, 2)
	q.enteredLocked(&s, before)
}

func (q *replyOrder) pushFrontLocked(s slot) {
	before := q.slots.cap()
	q.slots.pushFront(s, 2)
	q.enteredLocked(&s, before)
}

// enteredLocked accounts for a slot that is new in the queue, which had room for so many before.
func (q *replyOrder) enteredLocked(s *slot, before int) {
	if after := q.slots.cap(); after != before {
		q.account.Hold(slotsCost(after) - slotsCost(before))
	}
	if s.note != nil {
		q.account.Hold(noteCost)
	}
	if !s.kind.local() && s.kind != slotUncounted {
		q.owed += s.n
		if s.blocking {
			q.blocked++
		}
	}
}

func (q *replyOrder) popLocked() slot {
	s := q.slots.pop()
	if s.note != nil {
		q.account.Hold(-noteCost)
	}
	if q.slots.len() == 0 && q.slots.cap() > fewSlots {
		q.dropSlotsLocked() // an idle session keeps little
	}
	if q.slots.len() == maxSlots-1 {
		q.notifyLocked()
	}
	return s
}

// localFirstLocked says that the next thing the client waits for is a reply of ours.
func (q *replyOrder) localFirstLocked() bool {
	if q.run.n > 0 && !q.uncounted() {
		return false
	}
	for q.slots.len() > 0 && q.slots.at(0).kind == slotUncounted {
		q.popLocked()
		q.counting.Store(uncounted)
		q.run = slot{}
	}
	return q.slots.len() > 0 && q.slots.at(0).kind.local()
}

// nextLocal pops the reply of ours that is due, if one is, for the holder of the turn. What a lane has brought meanwhile comes
// first.
func (q *replyOrder) nextLocal() (slot, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.out.size > 0 || !q.localFirstLocked() {
		return slot{}, false
	}
	return q.popLocked(), true
}

// nextRun pops the slot that the frame which begins now answers. The caller has the turn and has written all
// locals before it. ok is false when nothing is owed; in uncounted mode nothing is ever owed.
func (q *replyOrder) nextRun() (ok, uncounted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.localFirstLocked()
	if q.uncounted() {
		return false, true
	}
	if q.onLane || q.slots.len() == 0 || q.slots.at(0).kind.local() {
		return false, false
	}
	q.run = q.popLocked()
	return true, false
}

// waitLocked waits until cond, called under the lock, holds. It reports whether it does: the session has not ended.
func (q *replyOrder) waitLocked(cond func() bool) bool {
	for !q.closed && !cond() {
		q.changed.Wait()
	}
	return !q.closed
}

func (q *replyOrder) notifyLocked() {
	q.changed.Broadcast()
	if q.wake != nil {
		q.wake()
	}
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

// lanesOwe says that what is owed is not for the own connection to answer, or else that the run is due from it.
func (q *replyOrder) lanesOwe() (owe, due bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	owe = q.onLane && !q.uncounted()
	return owe, !owe && q.run.n > 0
}

// forget drops the last reply that is owed; nothing else is. false: it is being passed on.
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

// dropSlotsLocked forgets all slots but the run.
func (q *replyOrder) dropSlotsLocked() {
	for i := range q.slots.len() {
		if q.slots.at(i).note != nil {
			q.account.Hold(-noteCost)
		}
	}
	q.account.Hold(-slotsCost(q.slots.cap()))
	q.slots.drop()
}

// drop forgets all slots of a session that has ended.
func (q *replyOrder) drop() {
	q.mu.Lock()
	q.dropSlotsLocked()
	q.mu.Unlock()
}
