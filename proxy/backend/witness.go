package backend

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

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
		b.leaveIfLate(l.witness)
		b.outlast(ctx, l)
		b.lives.set(nil, ErrLifeOver)
		close(l.over)
		if b.c.LifeOver != nil && ctx.Err() == nil {
			b.c.LifeOver(l)
		}
	}
}

// outlast reads the witness of a life, and those that take its place, until the life is over or ctx ends.
func (b *Backend) outlast(ctx context.Context, l *Life) {
	ctx, cancel := context.WithCancel(ctx)
	var settling sync.WaitGroup
	settling.Go(func() { b.settleDoubts(ctx, l) })
	stop := context.AfterFunc(ctx, l.close)
	for patient := false; l.last(patient) && ctx.Err() == nil; {
		v := b.succeed(ctx, l)
		if v == anotherProcess || ctx.Err() != nil { // the new one may have come after close
			break
		}
		patient = v == processUnknown
	}
	stop()
	cancel()
	l.close()
	settling.Wait()
	l.witness.Drop()
}

// last reads the witness until that ends, when it returns false, or is silent, when it returns true. It asks the witness now and then, so
// that the backend does not close it for being idle. A witness that is silent may still be of use: a process that stands still is the same.
// If patient is set, last does not look for silence until some time has passed.
func (l *Life) last(patient bool) (silent bool) {
	from := time.Now()
	if patient {
		from = from.Add(probeInterval)
	}
	for {
		now := time.Now()
		silent, until := l.silentAt(now)
		if silent && !now.Before(from) {
			return true
		}
		_, err := l.hear(until)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if l.quiet() {
				l.ask("PING")
			}
		case err != nil:
			return false
		}
	}
}

// hear reads the witness once, until a deadline, and returns how many answers have come. They may come with an error.
func (l *Life) hear(until time.Time) (answers int, err error) {
	l.witness.Socket.SetReadDeadline(until)
	b, k, err := l.witness.Receive()
	defer l.witness.Free(k)
	for len(b) > 0 {
		if !l.replies.Open() {
			l.head = l.head[:0]
		}
		used, done, err := l.replies.Next(b)
		if err != nil {
			return answers, err
		}
		l.head = append(l.head, b[:min(used, len(messageHead)-len(l.head))]...)
		b = b[used:]
		if !done || string(l.head) == messageHead {
			continue
		}
		if !l.take() {
			return answers, ErrUnasked
		}
		answers++
	}
	return answers, err
}

// messageHead begins what others publish to a channel of the witness, which answers nothing.
const messageHead = "*3\r\n$7\r\nmessage\r\n"

// take accounts for the reply that has come. It returns false if nobody asked for it.
func (l *Life) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.inquiries) == 0 {
		return false
	}
	q := l.inquiries[0]
	l.inquiries = l.inquiries[1:]
	q.refused, q.succeeded, l.heard = refusesToKnow(&l.replies), l.succeeded, time.Now()
	close(q.answered)
	return true
}

// silentAt reports whether the witness has owed an answer for too long, and returns how long it may be read until this is asked again.
func (l *Life) silentAt(now time.Time) (silent bool, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	until = now.Add(probeInterval)
	if len(l.inquiries) == 0 {
		return false, until
	}
	if end := l.heard.Add(l.witness.Patience(probeInterval)); end.After(now) {
		return false, end
	}
	return true, until
}

// quiet reports whether the witness owes nothing.
func (l *Life) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.inquiries) == 0
}
