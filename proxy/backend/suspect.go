package backend

import (
	"bytes"
	"time"

	"dragontls/proxy/clock"
)

// Move is what Config.Moved is told: connections of which DialledBefore(N) holds are to end.
type Move struct {
	N       uint64 // so often has the backend moved
	Address string // where it is now
	// InPlace means that the address is the same. A connection to the last backend works still, and so a session that cannot leave its
	// own one may keep it, as it would keep a direct one.
	InPlace bool
}

// suspicion is what is known of a backend that answers as a replica does. Guarded by address.mu.
type suspicion struct {
	suspected bool          // somebody has said so since the last move, and the next move is under way
	since     clock.Instant // when that was
	pause     time.Duration // how long nothing more is done about it after the last move in place
	next      clock.Instant // when that pause ends
}

// maxSuspectPause bounds the pause between moves in place while new connections get the same answer, so that a failover is noticed within
// that time.
const maxSuspectPause = 30 * time.Second

// suspectMemory is how long no reply must have said so until the pauses start again from the shortest. It is long, since a client that may run scripts can have the
// backend answer whatever they like.
const suspectMemory = 10 * time.Minute

// AnswersAsReplica reports whether an error reply means that the backend is a replica, or that it was one when it ran a transaction.
func AnswersAsReplica(line []byte) bool {
	line = bytes.TrimPrefix(line, []byte(execRefused))
	return bytes.HasPrefix(line, []byte("READONLY ")) || bytes.HasPrefix(line, []byte("MASTERDOWN "))
}

// Suspect is called when c has brought an answer of which AnswersAsReplica holds. Behind a stable address, such as a virtual IP, this is
// how a failover shows: connections that are open stay at the last master. The backend then moves, to another address of its name or in
// place, once the address takes a connection. If new connections get the same answer, the backend is a replica: they stay, and the next
// move has to wait for a pause that doubles each time. Suspect reports whether c caused a move. It never waits, and does nothing without
// Config.Moved.
func (b *Backend) Suspect(c *Conn) bool {
	if b.address == nil || !b.address.suspect(c.moves) {
		return false
	}
	b.address.doubt()
	return true
}

// suspect begins a suspicion because of a connection that was dialled after so many moves. It returns false if that tells nothing new.
func (a *address) suspect(moves uint64) bool {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if moves < a.moves || a.suspected || now < a.next {
		return false
	}
	if a.pause > 0 && now.Sub(a.next) < suspectMemory {
		a.pause = min(2*a.pause, max(maxSuspectPause, a.resolveInterval))
	} else {
		a.pause = a.resolveInterval
	}
	a.suspected, a.since = true, now
	return true
}

// moveInPlace ends the suspicion, and the connections from before it: the backend moves in place, unless it has moved to another address
// since it had moved so many times.
func (b *Backend) moveInPlace(moves uint64) {
	a := b.address
	now := a.now()
	a.mu.Lock()
	a.suspected, a.next = false, now.Add(a.pause)
	same, pause := a.moves == moves, a.pause
	if same {
		a.moves++
		a.inPlace = a.moves
	}
	m := Move{N: a.moves, Address: a.current, InPlace: true}
	took := now.Sub(a.since)
	a.mu.Unlock()
	if !same {
		return
	}
	b.Recovered("readonly")
	if m.Address == "" { // it has none but its path
		_, m.Address, _ = b.c.Target()
	}
	b.c.Log.Warn().Str("backend", b.URL()).Str("address", m.Address).Dur("for", took).Dur("pause", pause).
		Msg("the backend answers as a replica does: its connections are dialled again; if those get the same answer, they stay for a pause")
	a.moved(m)
}
