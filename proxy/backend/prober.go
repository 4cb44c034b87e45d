package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/resp"
)

const (
	probeInterval = time.Second
	// probeFresh: the backend counts as up for this long after an answer.
	probeFresh = 10 * time.Second
)

// Readiness tells whether the backend has answered a PING in the last 10 s, and lets the prober in as it should. With OK, Reason and
// Detail are empty, or say what keeps commands from being served all the same: it is loading, runs a long script, or has refused other
// connections in the last 10 s, since its maxclients is reached.
type Readiness struct {
	OK     bool
	Reason string // why not, in a word: see the function Reason, or "starting"
	Detail string // why not, with the cure; it names addresses
}

// answers is what the prober has learnt.
type answers struct {
	up       atomic.Bool
	answered clock.Atomic              // when the last answer came; 0 if there is none that counts
	ailing   atomic.Pointer[Readiness] // of the last probe; nil: all was well
	changed  atomic.Int64              // when up last changed, in unix nanoseconds; 0 before the first probe has come to an end
	pinged   atomic.Int64              // how long the last PING took that was answered, in nanoseconds; 0 before the first
}

// UpSince returns since when the backend has been up, or down, and how long the last PING took that it has answered. Both are zero before
// the first probe has come to an end.
func (b *Backend) UpSince() (since time.Time, ping time.Duration) {
	if at := b.changed.Load(); at != 0 {
		since = time.Unix(0, at)
	}
	return since, time.Duration(b.pinged.Load())
}

// setUp notes whether the backend is up.
func (b *Backend) setUp(up bool) {
	if b.up.Swap(up) != up || b.changed.Load() == 0 {
		b.changed.Store(time.Now().UnixNano())
	}
}

// Ready returns what the prober has learnt, which Run starts.
func (b *Backend) Ready() Readiness {
	r := b.ailing.Load()
	switch fresh := b.isFresh(); {
	case fresh && r != nil && r.OK:
		return *r
	case fresh:
		r := Readiness{OK: true, Detail: b.fullDetail()}
		if r.Detail != "" {
			r.Reason = Reason(ErrMaxClients)
		}
		return r
	case r != nil && !r.OK:
		return *r
	case b.answered.Load() != 0:
		f := Explain(ErrSilent)
		return Readiness{Reason: f.Reason, Detail: fmt.Sprintf("%s: no answer within %v (%s); %s", f.Line, probeFresh, b.URL(), f.Cure)}
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
	p := prober{backend: b}
	for {
		p.ailment.probed = time.Now()
		heard, err := p.ask(ctx)
		if ctx.Err() == nil {
			b.note(&p.ailment, heard, err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			if p.conn != nil {
				p.conn.Drop()
			}
			return
		}
	}
}

// note takes over what came of a probe, see prober.ask.
func (b *Backend) note(a *ailment, heard answer, err error) {
	if err == nil {
		b.answered.Store(b.c.Now())
		b.setUp(true)
		b.ailing.Store(a.well(b, heard))
		return
	}
	b.ailing.Store(a.ill(b, err, zerolog.ErrorLevel))
	if of(ErrAuth, ErrOpen, ErrProtected, ErrWantsTLS, ErrNoTLS)(err) { // it is there, and of no use
		b.answered.Store(0)
	}
	if !b.isFresh() {
		b.setUp(false)
	}
}

// prober asks whether the backend answers. One goroutine uses it.
type prober struct {
	backend *Backend
	conn    *Conn // nil: there is none
	ailment ailment
	nextLog clock.Atomic // of tellLate: no line is due before then
}

// answer is what the backend said to a PING, so that it counts as up.
type answer struct {
	busy     error // ErrScript, or ErrBusy if it is loading; nil: neither
	isNoAuth bool  // it wants a password, and none is configured
}

// ask sends PING, over a new connection if there is none or the last one has ended: that the backend or an operator closes a connection is
// no outage.
func (p *prober) ask(ctx context.Context) (heard answer, err error) {
	if p.conn != nil {
		if heard, err = p.ping(ctx); !isClosed(err) {
			return heard, err
		}
	}
	l := p.backend.proberLogin()
	if p.conn, err = p.backend.connect(ctx, l); err == nil {
		p.backend.outcome(nil)
		heard, err = p.ping(ctx)
	} else {
		p.backend.outcome(l.blame(err))
		p.backend.noteLimits(err)
	}
	if err != nil && ctx.Err() == nil {
		err = p.backend.lookAgain(ctx, err)
	}
	return heard, err
}

// ping sends PING and waits for the reply. Almost any counts: NOAUTH, LOADING and NOPERM come from a backend that is up. Where clients have
// users of their own, and the prober has none, it must be NOAUTH. After an error the connection is closed.
func (p *prober) ping(ctx context.Context) (heard answer, err error) {
	c := p.conn
	defer func() {
		if err != nil {
			c.Drop()
			p.conn = nil
		}
	}()
	c.Socket.SetReadDeadline(time.Now().Add(probeFresh))
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	late := time.AfterFunc(p.backend.connectTimeout(), p.tellLate)
	defer late.Stop()
	asked := p.backend.c.Now()
	if _, err := c.Stream.Write(resp.AppendCommand(nil, "PING")); err != nil {
		return heard, err
	}
	judge := heard.judge
	if l := p.backend.proberLogin(); l.Mapped && !c.Authenticated() {
		judge = isNoAuth
	}
	if err = c.expect(question{"PING", judge}); isTimeout(err) {
		err = fmt.Errorf("%w: %w", ErrSilent, err)
	}
	if err == nil {
		p.backend.pinged.Store(int64(p.backend.c.Now().Sub(asked)))
	}
	p.backend.noteLimits(err)
	return heard, err
}

// tellLate logs that a PING has no answer for so long that a session in need of a connection has given up. That is no outage before
// probeFresh: the backend may be in a long command. A timer calls it, in a goroutine of its own.
func (p *prober) tellLate() {
	b := p.backend
	now := b.c.Now()
	if now < p.nextLog.Load() {
		return
	}
	p.nextLog.Store(now.Add(ailmentInterval))
	f := Explain(ErrSilent)
	b.about(b.c.Log.Warn()).Str("reason", f.Reason).Stringer("for", b.connectTimeout()).Str("cure", f.Cure).Msg("the backend does not answer a PING yet")
}

// judge judges the reply to PING where any user may ask.
func (a *answer) judge(r *resp.Replies) error {
	err := turnedAway(r)
	if errors.Is(err, ErrScript) || IsLoading(err) {
		a.busy = err
		return nil
	}
	a.isNoAuth = r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "NOAUTH")
	return err
}

// Answers asks the backend on a fresh connection, within Config.ConnectTimeout, and reports whether it is there and does what it is asked:
// one that is loading, or runs a long script, does not. The connection does not count among MaxConnections.
func (b *Backend) Answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, b.connectTimeout())
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
	return c.expect(question{"PING", turnedAway}) == nil
}
