package backend

import (
	"context"
	"errors"
	"os"
	"time"

	"dragontls/proxy/resp"
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
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	for patient := false; ; {
		why := l.last(patient)
		if why == witnessEnded || ctx.Err() != nil {
			break
		}
		v := b.succeed(ctx, l, why)
		if v == anotherProcess || ctx.Err() != nil { // the new one may have come after close
			break
		}
		patient = v == processUnknown
	}
	l.close()
	l.witness.Drop()
}

// close closes the witness, any number of times, from any goroutine.
func (l *Life) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.witness.Close()
}

// needs says why last has returned.
type needs uint8

const (
	witnessEnded   needs = iota // the backend has closed it, or says what nobody has asked for
	witnessDoubted              // see doubted
	witnessSilent               // it has owed an answer for too long
)

// last reads the witness until that ends, is doubted or is silent, and asks it now and then, so that the backend does not close it for
// being idle. A witness that is silent may still be of use: a process that stands still is the same. If patient is set, last does not
// look for doubt and silence until some time has passed.
func (l *Life) last(patient bool) needs {
	w, from := l.witness, time.Now()
	if patient {
		from = from.Add(probeInterval)
	}
	for {
		now := time.Now()
		silent, until := l.silentAt(now)
		w.Socket.SetReadDeadline(until)
		switch looks := !now.Before(from); {
		case looks && l.doubted(): // after the deadline was set, which doubtLocked replaces
			return witnessDoubted
		case looks && silent:
			return witnessSilent
		}
		b, k, err := w.Receive()
		n, broken := l.countReplies(b)
		w.Free(k)
		switch {
		case broken != nil || !l.take(n):
			return witnessEnded
		case errors.Is(err, os.ErrDeadlineExceeded):
			if l.quiet() && l.ask() != nil {
				return witnessEnded
			}
		case err != nil:
			return witnessEnded
		}
	}
}

// silentAt reports whether the witness has owed an answer for too long, and returns how long it may be read until this is asked again.
func (l *Life) silentAt(now time.Time) (silent bool, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	until = now.Add(probeInterval)
	if l.answered == l.asked {
		return false, until
	}
	if end := l.heard.Add(max(probeInterval, farTrips*l.witness.Trip)); end.After(now) {
		return false, end
	}
	return true, until
}

// farTrips is how many of its own round trips a witness has for an answer in any case.
const farTrips = 8

// countReplies returns how many replies end in b. What others publish to the channel of the witness does not count.
func (l *Life) countReplies(b []byte) (n int, err error) {
	for len(b) > 0 {
		used, done, err := l.replies.Next(b)
		if err != nil {
			return n, err
		}
		b = b[used:]
		if message := l.channel != "" && l.replies.Kind() == '*' && l.replies.Len() == 3; done && !message {
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
	l.answerLocked(l.answered + uint64(n))
	return true
}

// answerLocked notes that so many of what was asked are answered now.
func (l *Life) answerLocked(n uint64) {
	l.answered, l.heard = n, time.Now()
	close(l.changed)
	l.changed = make(chan struct{})
}

// quiet reports whether every PING was answered.
func (l *Life) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered == l.asked
}

// ask asks the witness, so that it is known to be there.
func (l *Life) ask() error {
	l.mu.Lock()
	l.asked++
	l.heard = time.Now()
	l.mu.Unlock()
	_, err := l.witness.Write(resp.AppendCommand(nil, "PING"))
	return err
}
