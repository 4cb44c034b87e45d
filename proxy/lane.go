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
)

const (
	// The window of a lane bounds what is in flight on it; one session holds at most a quarter.
	laneCommands = 4096
	laneBytes    = 1 << 20
	laneShare    = 4
	// A nonce follows this many commands, or the first batch behind this time.
	nonceCommands = 1024
	nonceInterval = int64(100 * time.Millisecond)
	// maxLaneReply: who asks for more than this uses its own connection for ownAfterBig.
	maxLaneReply = 1 << 20
)

type laneState uint8

const (
	laneOpen    laneState = iota
	laneRetired           // no new work; it closes once nothing is in flight
	laneFailed            // a write failed: the reader takes what still comes
	laneClosed
)

// laneSlot is the place of the replies to one run of commands of a session, or of a nonce's.
type laneSlot struct {
	session *session // nil: a nonce
	n       int      // replies
	bytes   int      // of the commands, see pushBatchLocked
	at      uint64   // where their bytes begin in all that the lane was given
	tx      bool     // the run is MULTI .. EXEC
	nonce   uint64
	sent    int64 // when it was handed to the lane
}

// lane is a backend connection that sessions of one key share for commands of which each has exactly one reply. Replies
// are matched by order alone: slots and bytes enter under mu in one order, and only who has the token writes. Its reader
// and writer goroutines live as long as it does; Server.Close waits for them.
type lane struct {
	set    *laneSet
	up     *backend.Conn
	opened int64
	load   atomic.Int32  // commands in flight or waiting for room, for who chooses a lane
	late   atomic.Bool   // its backend does not keep up, see pulse
	busy   atomic.Bool   // it seldom has nothing in flight, see pulse
	wake   chan struct{} // to the writer, with the token
	closed chan struct{} // closed when the reader has ended
	pushed atomic.Bool   // a push has come: the sweeper replaces the lane, see laneSet.renew

	in laneReader

	mu sync.Mutex
	// guarded by mu
	state    laneState
	poisoned bool // replies may have gone to the wrong place: who is in flight is closed
	laneInFlight
	laneWrites
	laneNonces
	idleSince int64
	replied   int64 // when a run of replies was last whole
	pulse     pulse
	big       bool // the reply under way is longer than maxLaneReply
}

// laneInFlight is what the lane owes, and who waits for room. Guarded by lane.mu.
type laneInFlight struct {
	slots    ring[laneSlot] // whose replies are owed, in this order
	commands int
	bytes    int
	waiters  list.List // of *waiter, for room, in their order
	waiting  int       // their commands
}

// laneWrites is what waits to be written, and by whom. Guarded by lane.mu.
type laneWrites struct {
	token   bool    // somebody writes
	out     laneOut // waits for the writer
	spare   laneOut // empty
	writing int     // bytes of the buffers that are being written
	counted int64   // what these and the slots hold, see countLocked
	given   uint64  // bytes given to the lane, ever
	passed  uint64  // ... and passed to a write
}

// laneNonces says when the next nonce is due. Guarded by lane.mu.
type laneNonces struct {
	unnonced int // commands since the last one
	nonceAt  int64
}

// submit takes the batch of a session whole or not at all. The session's reader calls it. hot
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

// taken is what is left to do behind take.
type taken struct {
	result submission
	direct bool // the caller has the token, and writes out
	out    []byte
	start  bool      // the writer has it, and is to be woken
	turn   writeTurn // of the session, where replies of ours are due
}

// take enters a batch. A panic leaves the session's slots and the lane's in doubt: it takes the lane with it. hot
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
		l.wakeWaiterLocked() // it may have been this one's turn
		return taken{result: a}
	}
	// Where replies are on their way, the sessions that get them are about to ask again: the writer joins their commands, unless
	// this one is large.
	atOnce := l.slots.len() == 0 && l.commands == 0 || len(c.out) >= largeBatch
	t = taken{result: submitted, direct: atOnce && !l.token && l.up.TLS == nil, turn: turn}
	s.tally(s.stripe.lane) // before anybody can write the batch: no reply to it is out before it is counted
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

// unlock is deferred: a panic goes on behind it. hot
func (l *lane) unlock() {
	v := recover()
	l.mu.Unlock()
	if v != nil {
		l.poison()
		panic(v)
	}
}

// mustFitLane ends the session by a panic where slots and commands would not agree: before anybody else is concerned. hot
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

// loadLocked tells who chooses a lane what this one has to do. hot
func (l *lane) loadLocked() {
	l.load.Store(int32(l.commands + l.waiting))
}

// pushBatchLocked makes a slot of each slot that the session's queue got. hot
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
		// The first slot accounts for the bytes: a batch goes out whole.
		l.slots.push(laneSlot{session: s, n: p.n, bytes: size, at: l.given, tx: p.tx, sent: now}, 16)
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

// appendNonceLocked adds an ECHO of a random word behind a batch: its reply must come in exactly that place.
func (l *lane) appendNonceLocked(out []byte, now int64) []byte {
	word := rand.Uint64()
	nonce := backend.AppendNonce(make([]byte, 0, backend.NonceSize), word)
	l.slots.push(laneSlot{n: 1, at: l.given, nonce: word, sent: now}, 16)
	l.given += uint64(backend.NonceSize)
	l.unnonced, l.nonceAt = 0, now
	return append(out, nonce...)
}

// poison closes the lane and, through its reader, everybody in flight on it.
func (l *lane) poison() {
	l.mu.Lock()
	l.poisoned = true
	l.state = max(l.state, laneFailed)
	l.mu.Unlock()
	l.up.Close()
}

// retire takes no new work; the lane closes when nothing is in flight.
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

func (l *lane) idleLocked() bool { return l.slots.len() == 0 && l.commands == 0 && !l.token }

// idleAt returns since when nothing is in flight, and reports whether the lane is open and idle.
func (l *lane) idleAt() (since int64, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.idleSince, l.state == laneOpen && l.idleLocked()
}

// lastReply is when the backend last answered, or when the lane was opened.
func (l *lane) lastReply() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.opened, l.replied)
}

func (s *Server) lanePanic(v any) {
	s.panics.Add(1)
	s.log.Error().Interface("panic", v).Bytes("stack", debug.Stack()).Msg("panic in a lane")
}

// laneReader is what the lane's reader goroutine owns.
type laneReader struct {
	replies resp.Replies
	cur     laneSlot // whose replies come now
	left    int      // of its replies
	open    bool     // cur counts as in flight
	half    bool     // a part of a reply was handed to cur's session
	size    int64    // bytes of the reply that comes
	noted   bool     // it is known to be big
	dropped bool     // ... and asked again elsewhere: it is read and dropped
	push    bool     // the frame that comes is a push, see skipPush
	nonce   []byte
	ready   []writeTurn // of sessions that have replies and had no writer
}
