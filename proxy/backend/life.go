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
	doubts  chan struct{} // gets one when the backend has moved in place, see settleDoubts
	replies resp.Replies  // of the witness; for the goroutine that reads it
	head    []byte        // the first bytes of the frame that is read; for the same goroutine

	asking sync.Mutex // held while the witness is asked, so that inquiries have the order of what is written. It is locked before mu

	mu sync.Mutex
	// guarded by mu
	witness   *Conn
	channel   string // the witness is subscribed to it; empty if the user may not subscribe
	succeeded uint64 // so often another witness has taken its place, or is about to
	inquiries []*inquiry
	heard     time.Time // since when the witness has been silent, if it owes an answer
}

// inquiry is what the witness was asked.
type inquiry struct {
	asked    []byte
	answered chan struct{} // closed after the answer
	refused  error         // why the answer was an error; for a SUBSCRIBE only. Written before answered is closed, as is succeeded
	// succeeded is Life.succeeded at the answer.
	succeeded uint64
}

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
		select {
		case l.doubts <- struct{}{}:
		default:
		}
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

// close closes the witness, any number of times, from any goroutine.
func (l *Life) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.witness.Close()
}

// ask writes a command to the witness.
func (l *Life) ask(args ...string) *inquiry {
	q := &inquiry{asked: resp.AppendCommand(nil, args...), answered: make(chan struct{})}
	l.asking.Lock()
	defer l.asking.Unlock()
	l.mu.Lock()
	if len(l.inquiries) == 0 {
		l.heard = time.Now()
	}
	l.inquiries = append(l.inquiries, q)
	w := l.witness
	l.mu.Unlock()
	if _, err := w.Write(q.asked); err != nil {
		w.Close()
	}
	return q
}

// await waits for the answer to q. It returns ErrLifeOver if the life is over before, and the error of ctx if that ends first.
func (l *Life) await(ctx context.Context, q *inquiry) error {
	select {
	case <-q.answered:
		return nil
	case <-l.over:
		return ErrLifeOver
	case <-ctx.Done():
		return ctx.Err()
	}
}
