package proxy

import (
	"container/list"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/resp"
	"dragontls/proxy/ring"
)

const (
	// The window of a lane bounds the commands and bytes in flight on it. One session may have 1/laneShare of it.
	laneCommands = 4096
	laneBytes    = 1 << 20
	laneShare    = 4
	// A nonce follows the batch with which this many commands, or this much time, have passed since the last nonce.
	nonceCommands = 1024
	nonceInterval = int64(100 * time.Millisecond)
	// A reply with more bytes or elements than maxLaneReply moves its session to its own connection for ownAfterBig.
	maxLaneReply = 1 << 20
)

type laneState uint8

const (
	laneOpen    laneState = iota
	laneRetired           // no new work; it closes once nothing is in flight
	laneFailed            // a write failed: the lane's reader still delivers the replies that come
	laneClosed
)

// laneSlot is the place of the replies to one run of commands of a session, or of the reply to a nonce.
type laneSlot struct {
	session *session // nil for a nonce
	n       int      // replies that are owed
	bytes   int      // length of the commands, see pushBatchLocked
	at      uint64   // value of laneWrites.given before the bytes of these commands
	tx      bool     // the commands are a whole transaction, MULTI .. EXEC
	nonce   uint64
	sent    int64 // when the commands were handed to the lane
}

// lane is a backend connection that the sessions of one lane key share, for commands that have exactly one reply each.
// Replies are matched by order alone: slots and bytes enter in the same order, under mu, and only the holder of the token
// writes. The lane's reader and the lane's writer are goroutines that live as long as it does; Server.Close waits for them.
type lane struct {
	set    *laneSet
	up     *backend.Conn
	opened int64
	load   atomic.Int32  // commands in flight or waiting for room, read when a session chooses a lane
	late   atomic.Bool   // the backend does not keep up on this lane, see judgePulseLocked
	busy   atomic.Bool   // the lane nearly always has commands in flight, see judgeBusyLocked
	wake   chan struct{} // wakes the lane's writer and hands it the token
	closed chan struct{} // closed by conclude, when the lane's reader ends
	pushed atomic.Bool   // a push has come: the sweeper replaces the lane, see laneSet.renew

	in laneReader

	mu sync.Mutex
	// guarded by mu
	state    laneState
	poisoned bool // replies may be out of order: every session with a command in flight is closed
	laneInFlight
	laneWrites
	laneNonces
	idleSince int64
	replied   int64 // when the last reply of a slot last arrived
	pulse     pulse
	big       bool // the reply that is arriving is longer than maxLaneReply
}

// laneInFlight holds what the lane owes, and the sessions that wait for room on it. Guarded by lane.mu.
type laneInFlight struct {
	slots    ring.Ring[laneSlot] // in the order in which their replies are owed
	commands int
	bytes    int
	waiters  list.List // of *waiter: sessions that wait for room, in the order in which they came
	waiting  int       // number of commands of the waiters
}

// laneWrites holds what waits to be written, and the token. Guarded by lane.mu.
type laneWrites struct {
	token   bool    // somebody has the right to write to the lane
	out     laneOut // waits for the lane's writer
	spare   laneOut // empty; its buffer becomes out at the next write
	writing int     // bytes of the buffers that are being written
	counted int64   // memory of the buffers and the slots, see countLocked
	given   uint64  // bytes that were ever given to the lane
	passed  uint64  // bytes that were ever passed to a write
}

// laneNonces decides when the next nonce is due. Guarded by lane.mu.
type laneNonces struct {
	unnonced int // commands since the last nonce
	nonceAt  int64
}

// submit hands the session's batch to the lane, whole or not at all. The session's reader calls it. hot
func (l *lane) submit(s *session, now int64) submission {
	s.client.mustFitLane()
	t := l.take(s, now)
	switch {
	case t.direct:
		l.writeOne(s, t.out)
	case t.start:
		l.wakeWriter()
	}
	t.turn.release()
	return t.result
}

// taken is what the caller of take has left to do once the lane's lock is free.
type taken struct {
	result submission
	direct bool // the caller has the token and must write out
	out    []byte
	start  bool      // the token was free and now belongs to the writer, which the caller must wake, unless direct is set
	turn   writeTurn // of the session, where local replies are due; the caller must release it
}

// take enters the session's batch into its reply order and into the lane. A panic in take leaves the slots of both in doubt,
// so unlock then poisons the lane. hot
func (l *lane) take(s *session, now int64) (t taken) {
	c := &s.client
	l.mu.Lock()
	defer l.unlock()
	if l.state != laneOpen {
		return taken{result: submitGone}
	}
	if s.onLane.full(c.replies, len(c.out)) {
		return taken{result: submitShare}
	}
	if !l.roomLocked(s, c.replies, len(c.out)) {
		return taken{result: submitWait}
	}
	a, turn := s.admitToLane(c.pend, now)
	if a != submitted {
		l.wakeWaiterLocked() // this session may have been first in the queue, and the next one may fit
		return taken{result: a}
	}
	// While replies are on their way, the sessions that get them are about to send again: leave the batch to the writer, which
	// sends their commands with it in one write. A large batch does not wait for that.
	atOnce := l.slots.Len() == 0 && l.commands == 0 || len(c.out) >= largeBatch
	t = taken{result: submitted, direct: atOnce && !l.token && l.up.TLS == nil, turn: turn}
	s.tally(s.stripe.lane) // before the batch can be written, so that its commands are counted before any reply is out
	if l.commands == 0 {
		l.pulse.begin(l.idleSince, now)
	}
	l.pushBatchLocked(s, now)
	l.judgePulseLocked(now)
	t.out = c.out
	if l.nonceDueLocked(now) {
		t.out = l.appendNonceLocked(t.out, now)
	}
	t.start = !l.token
	l.token = true
	if t.direct {
		l.passed = l.given
	} else {
		l.out.take(s, t.out)
	}
	l.countLocked()
	return t
}

// unlock releases mu; take defers it. After a panic it also poisons the lane, once the lock is free, and lets the panic
// continue. hot
func (l *lane) unlock() {
	v := recover()
	l.mu.Unlock()
	if v != nil {
		l.poison()
		panic(v)
	}
}

// mustFitLane panics if the batch's slots and commands do not agree. That ends this session before its batch can put the
// replies of others out of order. hot
func (c *clientSide) mustFitLane() {
	n := 0
	for i := range c.pend {
		switch p := &c.pend[i]; {
		case p.kind == slotReplies:
			n += p.n
		case !p.kind.local():
			panic("a batch for the own connection went to a lane")
		}
	}
	if n != c.replies || n != c.frames {
		panic("a batch has not as many commands as slots")
	}
}

// loadLocked publishes the lane's load for sessions that choose a lane. hot
func (l *lane) loadLocked() {
	l.load.Store(int32(l.commands + l.waiting))
}

// pushBatchLocked adds a lane slot for each slot of the batch but the local replies, which the session's reply order has
// already got. hot
func (l *lane) pushBatchLocked(s *session, now int64) {
	c := &s.client
	if s.resendLen = 0; c.resendable && c.replies == 1 && len(c.out) <= len(s.resendFrame) {
		s.resendLen = copy(s.resendFrame[:], c.out)
	}
	size := len(c.out)
	for i := range c.pend {
		p := &c.pend[i]
		if p.kind.local() {
			continue
		}
		// The first slot counts all bytes of the batch, which goes out whole.
		l.slots.Push(laneSlot{session: s, n: p.n, bytes: size, at: l.given, tx: p.tx, sent: now}, 16)
		size = 0
	}
	l.given += uint64(len(c.out))
	l.bytes += len(c.out)
	l.commands += c.replies
	l.unnonced += c.replies
	l.loadLocked()
	s.onLane.add(c.replies, len(c.out))
	l.wakeWaiterLocked()
}

func (l *lane) nonceDueLocked(now int64) bool {
	return l.unnonced >= nonceCommands || now-l.nonceAt >= nonceInterval
}

// appendNonceLocked appends an ECHO of a random word to a batch, and a slot for its reply, which must return in exactly that
// place.
func (l *lane) appendNonceLocked(out []byte, now int64) []byte {
	word := rand.Uint64()
	nonce := backend.AppendNonce(make([]byte, 0, backend.NonceSize), word)
	l.slots.Push(laneSlot{n: 1, at: l.given, nonce: word, sent: now}, 16)
	l.given += uint64(backend.NonceSize)
	l.unnonced, l.nonceAt = 0, now
	return append(out, nonce...)
}

// poison closes the lane. The lane's reader then closes every session that has a command in flight on it (conclude).
func (l *lane) poison() {
	l.mu.Lock()
	l.poisoned = true
	l.state = max(l.state, laneFailed)
	l.mu.Unlock()
	l.up.Close()
}

// retire stops the lane from taking new work. It closes the lane at once if nothing is in flight; otherwise the lane closes
// after its last reply.
func (l *lane) retire() {
	l.mu.Lock()
	if l.state == laneOpen {
		l.state = laneRetired
	}
	idle := l.state == laneRetired && l.idleLocked()
	l.dismissLocked()
	l.mu.Unlock()
	l.set.remove(l)
	if idle {
		l.up.Close()
	}
}

func (l *lane) idleLocked() bool { return l.slots.Len() == 0 && l.commands == 0 && !l.token }

// idleAt reports whether the lane is open and idle, and returns since when nothing has been in flight.
func (l *lane) idleAt() (since int64, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.idleSince, l.state == laneOpen && l.idleLocked()
}

// lastReply returns when the backend last answered on this lane, or when the lane was opened if it has not.
func (l *lane) lastReply() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.opened, l.replied)
}

func (s *Server) lanePanic(v any) {
	s.panics.Add(1)
	s.log.Error().Interface("panic", v).Bytes("stack", debug.Stack()).Msg("panic in a lane")
}

// laneReader holds what the lane's reader goroutine owns.
type laneReader struct {
	replies resp.Replies
	cur     laneSlot    // the slot whose replies are arriving
	left    int         // replies of cur that are still to come
	open    bool        // cur still counts as in flight
	half    bool        // the beginning of a reply was handed to cur's session, and its end is still to come
	size    int64       // bytes so far of the reply that is arriving
	noted   bool        // noteBig was called for this reply
	dropped bool        // this reply is dropped: its command is sent again over the session's own connection
	push    bool        // the frame that is arriving is a push, see skipPush
	nonce   []byte      // the reply to a nonce, as far as it has come
	ready   []writeTurn // of sessions that got replies while nobody was writing to their clients
}
