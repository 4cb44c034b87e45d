package backend

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/resp"
)

const (
	probeInterval = time.Second
	// probeFresh: the backend counts as up for this long after an answer.
	probeFresh = 10 * time.Second
)

// Readiness tells whether the backend has answered a PING in the last 10 s, and lets the prober in as it should. With OK, Reason and
// Detail are empty, or say that it has refused other connections in the last 10 s: its maxclients is reached.
type Readiness struct {
	OK     bool
	Reason string // one word that says why not: see the function Reason, or "starting"
	Detail string // why not; it may name addresses
}

// answers is what the prober has learnt.
type answers struct {
	up       atomic.Bool
	answered clock.Atomic              // when the last answer came; 0 if there is none that counts
	unready  atomic.Pointer[Readiness] // of the last failure; nil: there was none
}

// Ready returns what the prober has learnt, which Run starts.
func (b *Backend) Ready() Readiness {
	if b.isFresh() {
		r := Readiness{OK: true, Detail: b.fullDetail()}
		if r.Detail != "" {
			r.Reason = Reason(ErrMaxClients)
		}
		return r
	}
	if r := b.unready.Load(); r != nil {
		return *r
	}
	return Readiness{Reason: "starting", Detail: "the backend has not answered yet"}
}

func (b *Backend) isFresh() bool {
	at := b.answered.Load()
	return at != 0 && b.c.Now().Sub(at) < probeFresh
}

// probe asks the backend once a second, over a connection of its own, until ctx ends.
func (b *Backend) probe(ctx context.Context) {
	t := time.NewTicker(probeInterval)
	defer t.Stop()
	var c *Conn
	last := "starting"
	for {
		var err error
		c, err = b.probeOnce(ctx, c)
		if ctx.Err() == nil {
			last = b.note(err, last)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			if c != nil {
				c.Drop()
			}
			return
		}
	}
}

// note takes over what came of a probe, and logs a change once: last is the reason of the last failure, or empty. It returns
// the reason of this one.
func (b *Backend) note(err error, last string) string {
	if err == nil {
		b.answered.Store(b.c.Now())
		b.up.Store(true)
		if last != "" {
			b.c.Log.Info().Msg("backend answers")
		}
		return ""
	}
	reason := Reason(err)
	b.unready.Store(&Readiness{Reason: reason, Detail: err.Error()})
	refuses := errors.Is(err, ErrAuth) || errors.Is(err, ErrOpen)
	if refuses {
		b.answered.Store(0)
	}
	if !b.isFresh() {
		b.up.Store(false)
	}
	if reason != last {
		b.c.Log.Warn().Err(err).Str("reason", reason).Msg("backend does not answer")
	}
	return reason
}

// probeOnce sends PING. Any reply counts: NOAUTH, LOADING and NOPERM come from a backend that is up. Where clients have
// users of their own, and the prober has none, it must be NOAUTH.
func (b *Backend) probeOnce(ctx context.Context, c *Conn) (*Conn, error) {
	l := b.proberLogin()
	if c == nil {
		var err error
		if c, err = b.connect(ctx, l); err != nil {
			b.outcome(l.blame(err))
			b.noteLimits(err)
			return nil, err
		}
		b.outcome(nil)
	}
	c.Socket.SetReadDeadline(time.Now().Add(probeFresh))
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	if _, err := c.Stream.Write(resp.AppendCommand(nil, "PING")); err != nil {
		c.Drop()
		return nil, err
	}
	judge := func(*resp.Replies) error { return nil }
	if l.Mapped && !c.Authenticated() {
		judge = isNoAuth
	}
	if err := c.expect(question{"PING", judge}); err != nil {
		c.Drop()
		return nil, err
	}
	return c, nil
}

// Answers asks the backend on a fresh connection, within Config.ConnectTimeout, and reports whether it is there and does what it is asked:
// one that is loading, or runs a long script, does not. The connection does not count among MaxConnections.
func (b *Backend) Answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, b.c.ConnectTimeout)
	defer cancel()
	c, err := b.connect(ctx, b.proberLogin())
	if err != nil {
		return false
	}
	defer c.Drop()
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	if _, err := c.Stream.Write(resp.AppendCommand(nil, "PING")); err != nil {
		return false
	}
	return c.expect(question{"PING", busy}) == nil
}
