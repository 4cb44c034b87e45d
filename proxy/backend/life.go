package backend

import (
	"context"
	"errors"
	"sync"
	"time"

	"dragontls/proxy/resp"
)

// ErrLifeOver means that the backend may have been restarted, or may be another one, since a life began.
var ErrLifeOver = errors.New("the backend was lost since then")

// Life is a time through which the backend is one process: a connection to it, the witness, stays open for as long, or another one has
// taken its place that leads to the same process (see succeed). What a process remembers until it ends, such as a script that a client
// has loaded, it still remembers while the life goes on that was there before. Safe for concurrent use.
type Life struct {
	over    chan struct{} // closed when the life is over
	replies resp.Replies  // of the witness; for the goroutine that reads it

	mu sync.Mutex
	// guarded by mu
	witness  *Conn
	channel  string // by which the witness is recognised, see subscription; empty if it cannot be
	trust    trust
	asked    uint64        // PINGs that were given to a write, or whose answer another witness is to give
	answered uint64        // so many of them were answered
	heard    time.Time     // since when the witness has been silent, if it owes an answer
	changed  chan struct{} // closed and replaced when answered grows
}

// trust says whether a reply of the witness shows that connections which were dialled before lead to its process.
type trust uint8

const (
	trusted trust = iota // it does: the backend has not moved in place through this life
	doubted              // it does not: another witness has to show first that it leads to the same process
	kept                 // it does not: the life was doubted before and went on, and whoever asks next doubts it again
)

// lives finds the life of the present. There is one only after somebody has asked for it.
type lives struct {
	wanted chan struct{} // somebody waits for a life

	mu sync.Mutex
	// guarded by mu
	now     *Life         // nil if there is none
	err     error         // why the last witness could not be dialled
	changed chan struct{} // closed and replaced when a life begins or cannot begin
}

// Life returns the life of the present. It dials a witness if there is none, and waits for that until ctx ends.
func (b *Backend) Life(ctx context.Context) (*Life, error) {
	v := &b.lives
	v.mu.Lock()
	now, changed := v.now, v.changed
	v.mu.Unlock()
	if now != nil {
		return now, nil
	}
	select {
	case v.wanted <- struct{}{}:
	default:
	}
	select {
	case <-changed:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.now == nil {
		return nil, v.err
	}
	return v.now, nil
}

func (v *lives) set(now *Life, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now, v.err = now, err
	close(v.changed)
	v.changed = make(chan struct{})
}

// leave is called when the backend has moved. If it is at another address, the life of the present ends. If it has moved in place, nobody
// knows yet whether it is another process: the life is doubted.
func (v *lives) leave(m Move) {
	v.mu.Lock()
	l := v.now
	v.mu.Unlock()
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.witness.DialledBefore(m.N):
	case m.InPlace:
		l.doubtLocked()
	default:
		l.witness.Close()
	}
}

// leaveIfLate does what leave does for a witness that was not there when the backend moved, since it was being dialled.
func (b *Backend) leaveIfLate(witness *Conn) {
	if n, late := b.DialledBeforeMove(witness); late {
		b.lives.leave(Move{N: n, InPlace: !b.LeadsElsewhere(witness)})
	}
}

// Over reports whether the life is known to be over.
func (l *Life) Over() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// Confirm asks the witness, and returns nil if the life still goes on: then a connection that was dialled before the call
// leads to the process of this life. It returns ErrLifeOver if the life is over, and the error of ctx if the witness does
// not answer in time.
func (l *Life) Confirm(ctx context.Context) error {
	mine, w := l.inquire()
	// PINGs that others asked for later may be written before this one. They do as well: they are later than this call.
	if w != nil {
		if _, err := w.Write(resp.AppendCommand(nil, "PING")); err != nil {
			w.Close()
		}
	}
	for {
		l.mu.Lock()
		answered, changed := l.answered >= mine, l.changed
		l.mu.Unlock()
		if answered {
			return nil
		}
		select {
		case <-changed:
		case <-l.over:
			return ErrLifeOver
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inquire enters a PING among those that were asked, and returns its number, and the witness to which the caller must write it. It
// returns nil for that if another witness is to answer, which takes the place of this one.
func (l *Life) inquire() (mine uint64, to *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == l.answered {
		l.heard = time.Now()
	}
	l.asked++
	if l.trust == kept {
		l.doubtLocked()
	}
	if l.trust == doubted {
		return l.asked, nil
	}
	return l.asked, l.witness
}

// doubtLocked has another witness take the place of this one, see succeed.
func (l *Life) doubtLocked() {
	l.trust = doubted
	l.witness.Socket.SetReadDeadline(time.Unix(1, 0)) // wakes the goroutine that reads it
}

func (l *Life) doubted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trust == doubted
}
