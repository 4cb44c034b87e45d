package lane

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
)

const (
	// unboundedPatience multiplies the time that a lane has for a reply if the work of its commands has no bound.
	unboundedPatience = 10
	// maxResentAtOnce bounds how many reads leave a lane that becomes held: each has an own connection dialled.
	maxResentAtOnce = 32
)

// Watch looks for lanes on which a reply is overdue, and asks the backend on a fresh connection whether it answers, at most once in
// Timeouts.Ask. If it does, then the fault is with the lane's connection or with its oldest command. Commands that only read leave such a
// lane: it is held. One that has been silent for Timeouts.Silent takes no more work. Watch also closes lanes that have been silent for so long and
// serve nobody any more. One goroutine calls it, at short intervals.
func (a *Sets) Watch(now clock.Instant) {
	var overdue []*Lane
	a.live.Range(func(k, _ any) bool {
		switch l := k.(*Lane); l.overdue(now) {
		case isOverdue:
			overdue = append(overdue, l)
		case isForsaken:
			l.up.Close()
		}
		return true
	})
	if len(overdue) == 0 || now < a.nextAsk {
		return
	}
	a.nextAsk = now.Add(a.c.Ask)
	if !a.backendAnswers() {
		return
	}
	for _, l := range overdue {
		l.passedBy(now)
	}
}

// backendAnswers asks the backend on a fresh connection.
func (a *Sets) backendAnswers() bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go backend.CancelWith(ctx, a.c.Done, cancel) // ends with ctx; nobody waits for it
	return a.c.Backend.Answers(ctx)
}

type overdueness uint8

const (
	isInTime   overdueness = iota
	isOverdue              // the backend is to be asked
	isForsaken             // it is to be closed: it is silent, and whoever waited for its replies has left
)

// overdue judges how long the lane has owed a reply.
func (l *Lane) overdue(now clock.Instant) overdueness {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, owes := l.silentSinceLocked()
	if !owes || l.state == closed {
		return isInTime
	}
	silent := now.Sub(since) >= l.patience(l.set.all.c.Silent)
	switch {
	case silent && l.state == retired && l.allLeftLocked():
		return isForsaken
	case silent && l.state == open, !l.held.Load() && now.Sub(since) >= l.patience(l.set.all.c.Held):
		return isOverdue
	}
	return isInTime
}

// patience is how long the lane may take for a reply, where a lane that is near has the time d for commands with bounded work.
func (l *Lane) patience(d time.Duration) time.Duration {
	if l.set.key.Unbounded {
		d *= unboundedPatience
	}
	return l.up.Patience(d)
}

// silentSinceLocked returns since when nothing has come on a lane that owes a reply.
func (l *Lane) silentSinceLocked() (since clock.Instant, owes bool) {
	head := l.headLocked()
	if head == nil {
		return 0, false
	}
	return max(head.sent, l.pulse.replied, l.heard.Load()), true
}

// allLeftLocked reports whether all sessions that the lane owes replies have ended.
func (l *Lane) allLeftLocked() bool {
	if s := l.in.cur.seat; l.in.open && s != nil && !l.in.cur.resent && !s.Rider.Ended() {
		return false
	}
	for i := range l.slots.Len() {
		if s := l.slots.At(i); s.seat != nil && !s.resent && !s.seat.Rider.Ended() {
			return false
		}
	}
	return true
}

// passedBy is called when the backend has answered on another connection, for which it was asked at the given time, when this lane was
// overdue. If nothing has come on the lane since, it holds the lane, and retires it if that has been silent for too long.
func (l *Lane) passedBy(asked clock.Instant) {
	c := &l.set.all.c
	p, overdue := l.hold(asked)
	if !overdue {
		return
	}
	level := zerolog.InfoLevel
	if p.silent {
		level = zerolog.WarnLevel
	}
	e := c.Log.WithLevel(level).Str("backend", c.Backend.URL()).Stringer("address", l.up.Socket.RemoteAddr()).Dur("silent_for", p.silence).Int("owed", p.owed)
	switch {
	case p.silent:
		l.Retire()
		c.Backend.Recovered("silent")
		e.Msg("a shared connection is silent, while the backend answers on a new one: it takes no more work")
	case p.newly:
		c.Backend.Recovered("held")
		e.Int("sent_again", p.again).Msg("a command keeps a shared connection waiting, while the backend answers on a new one: reads leave it")
	}
}

// passing is what hold has found: whether the lane was not held before, how many reads are sent again, whether it has been silent for too
// long, for how long, and how many commands it owes.
type passing struct {
	newly   bool
	again   int
	silent  bool
	silence time.Duration
	owed    int
}

// hold holds the lane unless something has come on it since the given time. It reports whether the lane is held. The lock is given back also
// if a rider panics.
func (l *Lane) hold(asked clock.Instant) (p passing, overdue bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, owes := l.silentSinceLocked()
	if !owes || since > asked || l.state == closed {
		return p, false
	}
	p = passing{newly: !l.held.Swap(true), silence: asked.Sub(since), owed: l.commands}
	if p.newly {
		p.again = l.resendReadsLocked()
	}
	p.silent = l.state == open && p.silence >= l.patience(l.set.all.c.Silent)
	return p, true
}

// resendReadsLocked has each session that waits behind the oldest command on the lane, for a single command which only reads, send it again
// over its own connection. It returns their number. Each has its command on this lane until it takes it back (TakeBack). While the backend has
// few connections to spare they go on waiting.
func (l *Lane) resendReadsLocked() (n int) {
	first := 1
	if l.in.open {
		first = 0
	}
	for i := first; i < l.slots.Len() && n < maxResentAtOnce && l.set.all.c.Backend.HasSpare(); i++ {
		s := l.slots.At(i)
		if s.seat == nil || s.resent || s.tx || s.n != 1 || s.seat.frameLen == 0 || s.seat.commands.Load() != 1 {
			continue
		}
		if s.seat.Rider.WantResend(append([]byte(nil), s.seat.frame[:s.seat.frameLen]...), true) {
			n++
		}
	}
	return n
}

// TakeBack has the lane drop the reply to the only command that s has in flight, if f returns true: the session sends the command again over
// its own connection. f is told whether the lane still owes the whole reply; if not, the lane delivers it just now, has delivered it, or has
// ended. TakeBack calls f with Lane.mu held. The session's reader calls TakeBack.
func (l *Lane) TakeBack(s *Seat, f func(owed bool) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots.Len() {
		if o := l.slots.At(i); o.seat == s && !o.resent {
			o.resent = f(true)
			return
		}
	}
	f(false)
}
