package backend

import (
	"cmp"
	"context"
	"errors"
	"time"

	"dragontls/proxy/resp"
)

// verdict says what another connection has shown of a witness that is silent.
type verdict uint8

const (
	processUnknown verdict = iota // nothing: the backend does not answer, or is not able to now
	sameProcess                   // it leads to the process of the witness; or the witness is not silent any more
	anotherProcess                // it leads to another one, or the user may not know
)

// beginLife dials a witness.
func (b *Backend) beginLife(ctx context.Context) (*Life, error) {
	c, channel, err := b.dialWitness(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &Life{witness: c, channel: channel, over: make(chan struct{}), doubts: make(chan struct{}, 1)}, nil
}

// dialWitness dials a connection that is to be a witness, has it judged, unless judge is nil, and subscribes to a channel. It returns no
// channel if the user may not subscribe.
func (b *Backend) dialWitness(ctx context.Context, judge func(context.Context, *Conn) error) (c *Conn, channel string, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.connectTimeout())
	defer cancel()
	c, err = b.connect(ctx, b.proberLogin())
	if err != nil {
		return nil, "", err
	}
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	if judge != nil {
		err = judge(ctx, c)
	}
	if err == nil {
		channel = newChannel()
		err = c.subscribe(channel)
	}
	if errors.Is(err, errMayNotKnow) {
		channel, err = "", nil
	}
	if err != nil || !stop() {
		c.Drop()
		return nil, "", cmp.Or(err, ctx.Err())
	}
	return c, channel, nil
}

// subscribe has c subscribe to a channel, and waits for the answer.
func (c *Conn) subscribe(channel string) error {
	x := expectation{replies: new(resp.Replies), want: []question{{"SUBSCRIBE", func(r *resp.Replies) error {
		if err := refusesToKnow(r); err != nil || r.Kind() == '*' {
			return err
		}
		return ErrUnasked
	}}}}
	return c.ask(resp.AppendCommand(nil, "SUBSCRIBE", channel), &x)
}

// lastLook is how long a silent witness has for an answer once the backend has answered on another connection. A backend that stood still
// has answered the witness before.
const lastLook = 500 * time.Millisecond

// succeed puts another witness in the place of a silent one, if the backend shows that it leads to the same process, and returns what it
// has shown. The silent one stays as long as the backend does not answer on another connection either, or if it then turns out that the
// backend only stood still. A silent witness cannot subscribe to another channel: it is recognised by the one that it has had from the
// beginning.
func (b *Backend) succeed(ctx context.Context, l *Life) verdict {
	next, channel, err := b.dialWitness(ctx, func(ctx context.Context, c *Conn) error {
		if err := c.knows(ctx, l.channel); !errors.Is(err, errMayNotKnow) {
			return err
		}
		return errAnotherProcess
	})
	if err != nil && !errors.Is(err, errAnotherProcess) {
		return processUnknown
	}
	if l.answers() {
		if next != nil {
			next.Drop()
		}
		return sameProcess
	}
	if err != nil {
		return anotherProcess
	}
	b.Recovered("silent")
	b.c.Log.Warn().Str("backend", b.URL()).Stringer("address", next.Socket.RemoteAddr()).
		Msg("the witness is silent, while the backend answers on a new connection: that takes its place")
	l.handOver(next, channel)
	b.leaveIfLate(next)
	return sameProcess
}

// answers looks at a silent witness once more and reports whether it answers.
func (l *Life) answers() bool {
	for until := time.Now().Add(lastLook); ; {
		n, err := l.hear(until)
		if n > 0 || err != nil {
			return n > 0
		}
	}
}

// handOver makes next the witness, and asks it what the last one has not answered.
func (l *Life) handOver(next *Conn, channel string) {
	l.mu.Lock()
	l.succeeded++ // before the backend can forget what the last one has subscribed to
	l.mu.Unlock()
	l.witness.Drop() // a goroutine that is writing to it gives up asking
	l.asking.Lock()
	defer l.asking.Unlock()
	l.mu.Lock()
	l.witness, l.channel, l.replies, l.heard = next, channel, resp.Replies{}, time.Now()
	var again []byte
	for _, q := range l.inquiries {
		again = append(again, q.asked...)
	}
	l.mu.Unlock()
	if len(again) == 0 {
		return
	}
	if _, err := next.Write(again); err != nil {
		next.Close()
	}
}
