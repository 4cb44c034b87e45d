package lane

import (
	"container/list"
	"sync/atomic"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
)

// Rider is what a lane calls of a session. None of these methods waits, but for Follow.
type Rider interface {
	// Admit enters the batch that is being submitted into the reply order of the session, and in the same order into the ring
	// of the lane, by to.Owe. It enters all of it, or nothing: then its result says why, and Submit returns that. Before it
	// returns Submitted it counts the commands, since a byte of them may be written at once. It may return the turn only with
	// Submitted, if a local reply is due and nobody was writing to the client. Submit calls it, and so the session's reader;
	// Lane.mu is held. After a panic the lane is poisoned.
	Admit(to Entry, now clock.Instant) (Result, Turn)

	// Receive takes b, which the lane has brought; the bytes live until it returns. b completes n replies and, if half is set,
	// ends in the middle of another. All of them belong to one run that Admit has entered. It returns the turn if nobody had
	// it: the lane then calls Turn.DrainNow. slow means that the client has not taken more than it may: the session does not
	// choose a lane any more, and the lane retires and calls Follow. A session that has ended drops b. The lane's reader calls
	// it, with no lock held. hot
	Receive(b []byte, n int, half bool, now clock.Instant) (slow bool, t Turn)

	// HasRoom wakes the session's reader, which waits for room on a lane or for another lane. Lane.mu is held.
	HasRoom()

	// Big says that a reply above MaxReply is arriving: the session uses its own connection for a while. The lane's reader calls
	// it, with no lock held.
	Big()

	// WantResend asks the session to send frame again over its own connection. frame must be the session's only command in
	// flight, with no byte of its reply delivered; WantResend returns false if that is no longer so. owed says what the lane does
	// with the reply if WantResend returns true: it drops the reply, or owes it until the session has an own connection and calls
	// TakeBack. The lane's reader calls it with no lock held, or Watch with Lane.mu.
	WantResend(frame []byte, owed bool) bool

	// Ended reports whether the session has ended, so that nobody gets its replies. Lane.mu is held.
	Ended() bool

	// Follow waits until the client has taken enough of what it was sent. It closes the session once the client has kept
	// others waiting for too long: othersWait reports whether there are any. The lane's reader calls it, with no lock held.
	Follow(othersWait func() bool)

	// Lose is told that replies that the lane owed will not come, because the lane is gone. again is the command if it may be sent again: it is the session's only one in flight, and no byte
	// of its reply was delivered. Otherwise again is nil. The lane's reader calls it last, with no lock held.
	Lose(again []byte)

	// Cut closes the session, because the replies of a lane on which it has a command in flight may be out of order, or because
	// half a reply was delivered whose rest is lost. The lane's reader calls it last, with no lock held.
	Cut()
}

// Turn is the right to write to the client of a session. There is at most one for each session. A function that returns a
// Turn other than nil gives this right to its caller, who gives it back exactly once, by calling one of the methods: it must
// neither drop a Turn nor keep a copy of it. No lock may be held then.
type Turn interface {
	// Release writes the local replies that are due. It may wait for the client: only the session's reader calls it.
	Release()
	// DrainNow writes what lanes brought. It never waits: what the client does not take at once is left to a goroutine. hot
	DrainNow()
}

// Result is what came of submitting a batch.
type Result uint8

const (
	Submitted Result = iota
	Wait             // the lane has no room, and the session is now among its waiters
	Share            // the session already has as much in flight as it may
	Gone             // the lane takes no new work
	// Refused is the first of the results that riders define for themselves: Admit returned it.
	Refused
)

// Batch is what a session submits as a whole. The session's reader owns it.
type Batch struct {
	Bytes   []byte         // canonical commands. They live until Submit returns, or longer if it took Chunk
	Chunk   *netio.Chunk   // the memory of Bytes, or nil. Submit may take it: it then sets both to nil
	Account *netio.Account // holds Chunk, until Submit takes that
	Replies int            // how many replies a lane would have to bring
	// Resendable means that the batch is a single command that may be sent again.
	Resendable bool
}

// largeBatch is the size in bytes from which a batch, or the rest of one, is not copied into the buffer of a lane: instead
// the session hands its chunk over to the lane.
const largeBatch = netio.ChunkSize / 2

// handOver takes the chunk of the batch from the session and returns it, if part is a large part of the batch; otherwise it
// returns nil. The capacity of part ends at the chunk's end only if it still lies in the chunk: append may have moved it. hot
func (b *Batch) handOver(part []byte) *netio.Chunk {
	k := b.Chunk
	if len(part) < largeBatch || k == nil || &part[:cap(part)][cap(part)-1] != &k[netio.ChunkSize-1] {
		return nil
	}
	b.Account.Hold(-netio.ChunkSize)
	b.Bytes, b.Chunk = nil, nil
	return k
}

// Seat is what lanes keep of one session. The session sets Rider before it submits anything, and never again.
// A session is on one lane at a time, but the last one may still have to account for its replies.
type Seat struct {
	Rider Rider

	// What the session has in flight on lanes. A lane gives room back only after the last reply of a run, when the session may
	// already be on another lane.
	commands, bytes atomic.Int32

	slowAt    clock.Atomic // when a command of the session was last found to be slow, see noteSlow
	slowUntil clock.Atomic

	waiter // guarded by the mu of the lane for which the session waits

	// The command in flight if it may be sent again, see askedAlone. Guarded by its lane's mu.
	frame    [96]byte
	frameLen int // 0 if there is no such command
}

// waiter is a session's place in the queue for room on a lane, with the size of the batch that waits.
type waiter struct {
	place        *list.Element // in Lane.waiters; nil if the session does not wait
	wantCommands int32
	wantBytes    int32
	woken        bool
}

// full reports whether so many more commands and bytes would exceed one session's share of a lane. A session with nothing in
// flight is never full. hot
func (s *Seat) full(commands, bytes int) bool {
	n := int(s.commands.Load())
	return n > 0 && (n+commands > MaxCommands/Shares || int(s.bytes.Load())+bytes > MaxBytes/Shares)
}

// count adds to what the session has in flight. hot
func (s *Seat) count(commands, bytes int) {
	s.commands.Add(int32(commands))
	s.bytes.Add(int32(bytes))
}

// slowMemory is how long a session that has sent two slow commands in that time rides unbounded lanes, after the last one.
const slowMemory = time.Minute

// noteSlow notes that the session sent a slow command. The second one within slowMemory moves it to unbounded lanes. A lane's
// reader calls it.
func (s *Seat) noteSlow(now clock.Instant) {
	if last := s.slowAt.Swap(now); last != 0 && now.Sub(last) < slowMemory {
		s.slowUntil.Store(now.Add(slowMemory))
	}
}

// SlowUntil returns the time until which the session is to ride unbounded lanes, because it has sent slow commands.
func (s *Seat) SlowUntil() clock.Instant { return s.slowUntil.Load() }
