package backend

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"dragontls/proxy/resp"
)

// A backend tells on any connection how many subscribers a channel has among its own connections, and a replica does not count those of
// its master. So another connection leads to the process of the witness if the backend knows the witness there as a subscriber. Any client
// of the backend can find the name of a channel that has subscribers, and subscribe to it too, here or in another process. Therefore more
// than one subscriber is as good as one, and the witness subscribes to another channel for each question (see compare). A run_id would
// tell the same, but Dragonfly names none.

var (
	errAnotherProcess = errors.New("the backend does not know the witness")
	errMayNotKnow     = errors.New("the user may not ask whether the backend knows the witness")
)

func newChannel() string { return fmt.Sprintf("dragontls:witness:%016x", rand.Uint64()) }

// Confirm returns nil if the life still goes on and c leads to the process of this life. Nothing is owed on c, and nobody else uses it yet.
// It returns ErrLifeOver if the life is over or c leads to another process, which ends the life; otherwise why that cannot be known now, and
// the caller must not use c. If the user of c, or that of the witness, may not ask, Confirm only waits for an answer of the witness: then c
// leads to the process of this life unless the backend's address has led elsewhere, unnoticed, while the last process lives on.
func (l *Life) Confirm(ctx context.Context, c *Conn) error {
	err := l.recognise(ctx, c)
	if errors.Is(err, errMayNotKnow) {
		err = nil
	}
	if err == nil {
		c.life = l
	}
	return err
}

// recognise is Confirm, but it returns errMayNotKnow if a user may not ask.
func (l *Life) recognise(ctx context.Context, c *Conn) error {
	for {
		err := l.compare(ctx, c)
		switch {
		case !errors.Is(err, errAnotherProcess):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// compare has the witness subscribe to a new channel, and asks over c whether that has subscribers. It returns errAnotherProcess if another
// witness has taken the place of the one that has subscribed: the answer is worth nothing then.
func (l *Life) compare(ctx context.Context, c *Conn) error {
	if !l.mayBeKnown() {
		return cmp.Or(l.await(ctx, l.ask("PING")), errMayNotKnow)
	}
	channel := newChannel()
	q := l.ask("SUBSCRIBE", channel)
	defer l.ask("UNSUBSCRIBE", channel)
	if err := cmp.Or(l.await(ctx, q), q.refusal()); err != nil {
		return err
	}
	err := c.knows(ctx, channel)
	if !errors.Is(err, errAnotherProcess) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.succeeded == q.succeeded {
		l.witness.Close()
		return ErrLifeOver
	}
	return err
}

// mayBeKnown reports whether the witness may subscribe.
func (l *Life) mayBeKnown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.channel != ""
}

// Confirmed reports whether l has confirmed the connection.
func (c *Conn) Confirmed(l *Life) bool { return l != nil && c.life == l }

// refusal returns why the witness may not subscribe, or nil as long as there is no answer.
func (q *inquiry) refusal() error {
	select {
	case <-q.answered:
		return q.refused
	default:
		return nil
	}
}

// knows asks over c whether the channel has subscribers.
func (c *Conn) knows(ctx context.Context, channel string) error {
	deadline, _ := ctx.Deadline()
	c.Socket.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	x := expectation{replies: new(resp.Replies), drop: c.resp3}
	x.want = []question{{"PUBSUB NUMSUB", func(r *resp.Replies) error { return knowsSubscriber(r, x.frames, channel) }}}
	err := c.ask(resp.AppendCommand(nil, "PUBSUB", "NUMSUB", channel), &x)
	c.Pushed = c.Pushed || x.dropped > 0
	if !stop() {
		return ctx.Err()
	}
	c.Socket.SetReadDeadline(time.Time{})
	return err
}

// knowsSubscriber judges the reply to PUBSUB NUMSUB for a channel.
func knowsSubscriber(r *resp.Replies, frames []byte, channel string) error {
	if err := refusesToKnow(r); err != nil {
		return err
	}
	count, is := bytes.CutPrefix(frames, fmt.Appendf(nil, "*2\r\n$%d\r\n%s\r\n:", len(channel), channel))
	n, err := strconv.ParseUint(string(bytes.TrimSuffix(count, []byte("\r\n"))), 10, 64)
	switch {
	case !is || err != nil:
		return ErrUnasked
	case n == 0:
		return errAnotherProcess
	}
	return nil
}

// refusesToKnow judges a reply: an error means that the backend can do nothing now, or that the user may not ask for this.
func refusesToKnow(r *resp.Replies) error {
	if r.Kind() != '-' {
		return nil
	}
	line := string(r.Line())
	return refusal(cmp.Or(TurnedAway(line), errMayNotKnow), "what shows its process", []byte("-"+line))
}

// settleDoubts finds out whether the backend is the same process still, each time that it has moved in place, until the life ends with ctx.
func (b *Backend) settleDoubts(ctx context.Context, l *Life) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.doubts:
		case <-again:
		}
		again = nil
		switch err := b.settleDoubt(ctx, l); {
		case errors.Is(err, ErrLifeOver), errors.Is(err, errMayNotKnow):
			l.close()
		case err != nil:
			again = time.After(probeInterval)
		}
	}
}

// settleDoubt has a connection recognised that is dialled for this alone.
func (b *Backend) settleDoubt(ctx context.Context, l *Life) error {
	if !l.mayBeKnown() {
		return errMayNotKnow
	}
	c, err := b.connect(ctx, b.proberLogin())
	if err != nil {
		return err
	}
	defer c.Drop()
	ctx, cancel := context.WithTimeout(ctx, max(b.connectTimeout(), probeInterval))
	defer cancel()
	return l.recognise(ctx, c)
}
