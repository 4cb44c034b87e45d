package backend

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"dragontls/proxy/resp"
)

// ErrLifeOver means that the backend may have been restarted, or may be another one, since a life began.
var ErrLifeOver = errors.New("the backend was lost since then")

// Life is a time through which the backend is one process: a connection to it, the witness, stays open for as long. What a
// process remembers until it ends, such as a script that a client has loaded, it still remembers while the life goes on that
// was there before. Safe for concurrent use.
type Life struct {
	witness *Conn
	over    chan struct{} // closed when the witness has ended

	mu sync.Mutex
	// guarded by mu
	asked    uint64        // PINGs that were given to a write
	answered uint64        // replies to them
	changed  chan struct{} // closed and replaced when answered grows
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

// witness keeps a witness connected from the time that somebody first asks for a life, until ctx ends. It calls
// Config.LifeOver at the end of each life.
func (b *Backend) witness(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.lives.wanted:
		}
		l, err := b.beginLife(ctx)
		b.lives.set(l, err)
		if err != nil {
			continue
		}
		if _, late := b.DialledBeforeMove(l.witness); late {
			l.witness.Close()
		}
		l.last(ctx)
		b.lives.set(nil, ErrLifeOver)
		close(l.over)
		if b.c.LifeOver != nil && ctx.Err() == nil {
			b.c.LifeOver(l)
		}
	}
}

// beginLife dials a witness, which must answer a PING with whatever reply, like the prober's connection.
func (b *Backend) beginLife(ctx context.Context) (*Life, error) {
	login := b.proberLogin()
	c, err := b.connect(ctx, login)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	c.Socket.SetReadDeadline(time.Now().Add(b.c.ConnectTimeout))
	_, err = c.Write(resp.AppendCommand(nil, "PING"))
	if err == nil {
		err = c.expect(question{"PING", func(r *resp.Replies) error {
			if isFull(r) {
				return ErrMaxClients
			}
			return nil
		}})
	}
	if err != nil {
		c.Drop()
		return nil, err
	}
	return &Life{witness: c, over: make(chan struct{}), changed: make(chan struct{})}, nil
}

// last reads the witness until that ends, and asks it now and then, so that the backend does not close it for being idle. A
// witness that is silent goes on: a process that stands still is still the same.
func (l *Life) last(ctx context.Context) {
	stop := context.AfterFunc(ctx, l.witness.Close)
	defer stop()
	defer l.witness.Drop()
	var replies resp.Replies
	for {
		l.witness.Socket.SetReadDeadline(time.Now().Add(probeInterval))
		b, k, err := l.witness.Receive()
		n, broken := countReplies(&replies, b)
		l.witness.Free(k)
		switch {
		case broken != nil || !l.take(n):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			if l.quiet() && l.ask() != nil {
				return
			}
		case err != nil:
			return
		}
	}
}

// countReplies returns how many replies end in b.
func countReplies(replies *resp.Replies, b []byte) (n int, err error) {
	for len(b) > 0 {
		used, done, err := replies.Next(b)
		if err != nil {
			return n, err
		}
		if b = b[used:]; done {
			n++
		}
	}
	return n, nil
}

// take accounts for n replies. It returns false, and accounts for none, if nobody asked for them all.
func (l *Life) take(n int) bool {
	if n == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answered+uint64(n) > l.asked {
		return false
	}
	l.answered += uint64(n)
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// quiet reports whether every PING was answered.
func (l *Life) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered == l.asked
}

func (l *Life) ask() error {
	l.mu.Lock()
	l.asked++
	l.mu.Unlock()
	_, err := l.witness.Write(resp.AppendCommand(nil, "PING"))
	return err
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
	l.mu.Lock()
	l.asked++
	mine := l.asked
	l.mu.Unlock()
	// PINGs that others asked for later may be written before this one. They do as well: they are later than this call.
	if _, err := l.witness.Write(resp.AppendCommand(nil, "PING")); err != nil {
		l.witness.Close()
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

// leave ends the life of the present if the backend has moved to another address since its witness was dialled.
func (v *lives) leave(moves uint64) {
	v.mu.Lock()
	now := v.now
	v.mu.Unlock()
	if now != nil && now.witness.DialledBefore(moves) {
		now.witness.Close()
	}
}
