package backend

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"dragontls/proxy/resp"
)

// A witness subscribes to a channel whose name nobody can guess. A backend tells on any connection how many subscribers a channel has
// among its own connections, and a replica does not count those of its master. So another connection leads to the process of the
// witness if the backend knows the subscriber there. A run_id would tell the same, but Dragonfly names none.

// verdict says what another connection has shown of a witness.
type verdict uint8

const (
	processUnknown verdict = iota // nothing: the backend does not answer, or is not able to now
	sameProcess                   // it leads to the process of the witness
	anotherProcess                // it leads to another one, or the user may not know
)

var errAnotherProcess = errors.New("the backend does not know the witness")

// beginLife dials a witness, which must answer a PING with whatever reply, like the prober's connection.
func (b *Backend) beginLife(ctx context.Context) (*Life, error) {
	c, channel, err := b.dialWitness(ctx, func(r *resp.Replies, _ []byte) error {
		if err := turnedAway(r); !errors.Is(err, ErrScript) && !IsLoading(err) {
			return err
		}
		return nil
	}, "PING")
	if err != nil {
		return nil, err
	}
	return &Life{witness: c, channel: channel, over: make(chan struct{}), changed: make(chan struct{})}, nil
}

// dialWitness dials a connection that is to be a witness, asks it something, of which judge gets the reply, and subscribes to a channel. It
// returns no channel if the user may not subscribe.
func (b *Backend) dialWitness(ctx context.Context, judge func(r *resp.Replies, frames []byte) error, asked ...string) (c *Conn, channel string, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.c.ConnectTimeout)
	defer cancel()
	c, err = b.connect(ctx, b.proberLogin())
	if err != nil {
		return nil, "", err
	}
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	channel = fmt.Sprintf("dragontls:witness:%016x", rand.Uint64())
	x := expectation{replies: new(resp.Replies)}
	x.want = []question{{asked[0], func(r *resp.Replies) error { return judge(r, x.frames) }}, {"SUBSCRIBE", func(r *resp.Replies) error {
		if r.Kind() != '*' {
			channel = ""
		}
		return nil
	}}}
	_, err = c.Write(resp.AppendCommand(resp.AppendCommand(nil, asked...), "SUBSCRIBE", channel))
	if err == nil {
		err = x.receive(c)
	}
	if err != nil || !stop() {
		c.Drop()
		return nil, "", cmp.Or(err, ctx.Err())
	}
	return c, channel, nil
}

// succeed puts another witness in the place of the one that is doubted or silent, if the backend shows that it leads to the same process,
// and returns what it has shown. A silent witness stays as long as the backend does not answer on another connection either.
func (b *Backend) succeed(ctx context.Context, l *Life, why needs) verdict {
	if l.channel == "" && why == witnessDoubted {
		return anotherProcess
	}
	l.mu.Lock()
	covered := l.asked // whoever has asked by now is answered by what another connection shows from here on
	l.mu.Unlock()
	next, channel, err := b.dialWitness(ctx, knowsSubscriber(l.channel), "PUBSUB", "NUMSUB", l.channel)
	switch {
	case errors.Is(err, errAnotherProcess):
		return anotherProcess
	case err != nil:
		return processUnknown
	}
	if why == witnessSilent {
		b.Recovered("silent")
		b.c.Log.Warn().Str("backend", b.URL()).Stringer("address", next.Socket.RemoteAddr()).
			Msg("the witness is silent, while the backend answers on a new connection: that takes its place")
	}
	l.witness.Drop()
	again := l.handOver(next, channel, covered)
	b.leaveIfLate(next)
	if len(again) > 0 {
		if _, err := next.Write(again); err != nil {
			next.Close()
		}
	}
	return sameProcess
}

// knowsSubscriber judges the reply to PUBSUB NUMSUB for a channel that has one subscriber.
func knowsSubscriber(channel string) func(*resp.Replies, []byte) error {
	want := fmt.Appendf(nil, "*2\r\n$%d\r\n%s\r\n:1\r\n", len(channel), channel)
	return func(r *resp.Replies, frames []byte) error {
		if err := turnedAway(r); err != nil || channel != "" && bytes.Equal(frames, want) {
			return err
		}
		return errAnotherProcess
	}
}

// handOver makes next the witness. covered is how many PINGs what it has shown answers. handOver returns what the caller must write to it
// for those that were asked since.
func (l *Life) handOver(next *Conn, channel string, covered uint64) (again []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.witness, l.channel, l.replies = next, channel, resp.Replies{}
	l.answerLocked(covered)
	switch {
	case l.trust == trusted:
		again = bytes.Repeat(resp.AppendCommand(nil, "PING"), int(l.asked-l.answered))
	case l.asked == l.answered:
		l.trust = kept
	}
	return again
}
