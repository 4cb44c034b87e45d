// Package lane owns the connections that sessions share. A lane is such a connection: replies on it are matched to commands
// by order alone. A session submits a batch of commands with Lane.Submit; the lane writes it, and hands each reply to the
// session that is next in the lane's ring, through Rider. Sets finds the lanes for a session: those of its Key.
//
// The way of a command: Submit, take and writeOne in submit.go, or write in write.go, then takeIn and deliver in read.go. Package
// proxy, whose sessions ride the lanes, has the map of the whole way in its doc.go, with the invariants that lanes keep.
//
// Locks are taken in the order Sets.mu, Set.mu, Lane.mu, and then those of the rider.
package lane

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
	"dragontls/proxy/ring"
)

const (
	// MaxCommands and MaxBytes are the window of a lane: they bound the commands and bytes in flight on it. One session may have
	// 1/Shares of it.
	MaxCommands = 4096
	MaxBytes    = 1 << 20
	Shares      = 4
	// A nonce follows the batch with which this many commands, or this much time, have passed since the last nonce.
	nonceCommands = 1024
	nonceInterval = 100 * time.Millisecond
)

type state uint8

const (
	open    state = iota
	retired       // no new work; it closes once nothing is in flight
	failed        // a write failed: the lane's reader still delivers the replies that come
	closed
)

// slot is the place of the replies to one run of commands of a session, or of the reply to a nonce.
type slot struct {
	seat  *Seat  // of the session; nil for a nonce
	n     int    // replies that are owed
	bytes int    // length of the whole batch, in its first slot only
	at    uint64 // value of writes.given before the bytes of these commands
	tx    bool   // the commands are a whole transaction, MULTI .. EXEC
	// resent means that the reply is dropped: the command is sent again over the session's own connection
	resent bool
	nonce  uint64
	sent   clock.Instant // when the commands were handed to the lane
}

// Lane is a backend connection that the sessions of one Key share, for commands that have exactly one reply each. Replies
// are matched by order alone: slots and bytes enter in the same order, under mu, and only the holder of the token writes. The
// lane's reader and the lane's writer are goroutines that live as long as it does; Config.Running counts them. Safe for
// concurrent use.
type Lane struct {
	set    *Set
	up     *backend.Conn
	opened clock.Instant
	load   atomic.Int32  // commands in flight or waiting for room, read when a session chooses a lane
	late   atomic.Bool   // the backend does not keep up on this lane, see judgePulseLocked
	busy   atomic.Bool   // the lane nearly always has commands in flight, see judgePulseLocked
	wake   chan struct{} // wakes the lane's writer and hands it the token
	closed chan struct{} // closed by conclude, when the lane's reader ends
	heard  clock.Atomic  // when a part of the replies to a slot last came
	pushed atomic.Bool   // a push has come: Sweep replaces the lane, see Set.renew
	shunned

	in reader

	mu sync.Mutex
	// guarded by mu
	state    state
	poisoned bool // replies may be out of order: every session with a command in flight is closed
	inFlight
	writes
	nonces
	pulse pulse
}

// inFlight holds what the lane owes, and the sessions that wait for room on it. Guarded by Lane.mu.
type inFlight struct {
	slots    ring.Ring[slot] // in the order in which their replies are owed
	commands int
	bytes    int
	waiters  list.List // of *Seat: sessions that wait for room, in the order in which they came
	waiting  int       // number of commands of the waiters
}

// writes holds what waits to be written, and the token. Guarded by Lane.mu.
type writes struct {
	token   bool   // somebody has the right to write to the lane
	out     output // waits for the lane's writer
	spare   output // empty; its buffer becomes out at the next write
	writing int    // bytes of the buffers that are being written
	counted int64  // memory of the buffers and the slots, see countLocked
	given   uint64 // bytes that were ever given to the lane
	passed  uint64 // bytes that were ever passed to a write
}

// nonces decides when the next nonce is due. Guarded by Lane.mu.
type nonces struct {
	unnonced int // commands since the last nonce
	nonceAt  clock.Instant
}

// loadLocked publishes the lane's load for sessions that choose a lane. hot
func (l *Lane) loadLocked() {
	l.load.Store(int32(l.commands + l.waiting))
}

func (l *Lane) idleLocked() bool { return l.slots.Len() == 0 && l.commands == 0 && !l.token }

// overLocked reports whether the lane is retired and owes nothing more. The caller must then close its connection, once the
// lock is free. hot
func (l *Lane) overLocked() bool { return l.state == retired && l.idleLocked() }

// Idle reports whether the lane is open and idle, and returns since when nothing has been in flight.
func (l *Lane) Idle() (since clock.Instant, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pulse.idleSince, l.state == open && l.idleLocked()
}

// LastReply returns when the backend last answered on this lane, or when the lane was opened if it has not.
func (l *Lane) LastReply() clock.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.opened, l.pulse.replied)
}

// Transactions reports whether the lane may carry transactions: the backend ran an empty one when the lane was dialled.
func (l *Lane) Transactions() bool { return l.up.Transactions() }

// DialledBefore reports whether the lane leads to an address that the backend had before it moved for the nth time.
func (l *Lane) DialledBefore(n uint64) bool { return l.up.DialledBefore(n) }

// Account counts what the lane makes the proxy hold. It is that of its socket too.
func (l *Lane) Account() *netio.Account { return l.up.Socket.Account() }
