package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"

	"dragontls/proxy/netio"
)

// Dial opens a connection and introduces it as l says. It waits for a place among Config.MaxConnections and, while the backend fails,
// for its turn, until ctx ends; then the dial itself has Config.ConnectTimeout. The connection belongs to the caller, who closes it.
// Reason tells errors apart.
func (b *Backend) Dial(ctx context.Context, l Login) (c *Conn, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !b.room.take(ctx) {
		b.Count("max_connections")
		return nil, errFull
	}
	defer func() {
		if c == nil {
			b.room.leave()
		}
	}()
	done, err := b.takeTurn(ctx, l.AtOnce)
	if err != nil {
		return nil, err
	}
	err = ErrDialPanicked
	defer func() { done(l.blame(err)) }()
	c, err = b.connect(ctx, l)
	if errors.Is(ctx.Err(), context.Canceled) && err != nil {
		return nil, context.Canceled // the caller no longer wants the connection: this says nothing about the backend
	}
	if err != nil {
		b.Count(Reason(err))
		b.tellPorts(err)
		b.noteLimits(err)
		return nil, err
	}
	cost := int64(ConnectionCost)
	if c.TLS != nil {
		cost += tlsConnectionCost
	}
	b.c.Buffers.Fix(cost)
	c.release = func() {
		b.c.Buffers.Fix(-cost)
		b.connections.Add(-1)
		b.room.leave()
	}
	b.connections.Add(1)
	return c, nil
}

// takeTurn lets everybody dial at once while dials work, and one at a time after a failure. A caller with atOnce does not wait for its
// turn if the last dial was refused: it gets the error of that dial, or dials out of turn (refusedLately).
func (b *Backend) takeTurn(ctx context.Context, atOnce bool) (done func(error), err error) {
	if !b.IsFailing() {
		return b.outcome, nil
	}
	if atOnce {
		if err, dials := b.refusedLately(); dials {
			return b.outcomeOutOfTurn, nil
		} else if err != nil {
			return nil, err
		}
	}
	select {
	case b.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	wait := time.Until(b.next)
	if b.pause == 0 {
		wait = 0
	}
	b.mu.Unlock()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			<-b.gate
			return nil, ctx.Err()
		}
	}
	return func(err error) { b.outcome(err); <-b.gate }, nil
}

// refusedLately returns the error of the last dial if the backend refused it within firstPause. If that was longer ago, dials is true: the
// caller is to dial, and those that come within firstPause of it get the old error.
func (b *Backend) refusedLately() (err error, dials bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused == nil || time.Since(b.refusedAt) < firstPause {
		return b.refused, false
	}
	b.refusedAt = time.Now()
	return nil, true
}

// IsRefused reports whether err is that of a dial to an address at which nobody listens: a direct connection would be refused as well.
func IsRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist))
}

// outcomeOutOfTurn is outcome for a dial that did not wait for its turn: if it is refused, the dials that wait do not wait longer for that.
func (b *Backend) outcomeOutOfTurn(err error) {
	if !IsRefused(err) {
		b.outcome(err)
	}
}

// outcome takes over what a dial says of the backend; nil: it works.
func (b *Backend) outcome(err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrNoPassword) {
		return // the backend was not asked
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused = nil; err == nil {
		b.pause = 0
		return
	}
	if IsRefused(err) {
		b.refused, b.refusedAt = err, time.Now()
	}
	b.pause = min(maxPause, max(firstPause, 2*b.pause))
	b.next = time.Now().Add(b.pause)
}

// connect dials and introduces one connection, for which Dial has found a place and the turn.
func (b *Backend) connect(ctx context.Context, l Login) (*Conn, error) {
	b.dials.Add(1)
	ctx, cancel := context.WithTimeout(ctx, b.connectTimeout())
	defer cancel()
	var user, password string
	if l.Credentials != nil {
		var err error
		if user, password, err = l.Credentials(); err != nil {
			return nil, fmt.Errorf("%w: %w", errSettings, err)
		}
	}
	raw, target, moves, err := b.reach(ctx)
	if err != nil {
		return nil, err
	}
	netio.Tune(raw, b.c.KeepAlive, b.writeTimeout())
	account := l.Account
	if account == nil {
		account = b.c.Buffers.NewAccount()
	}
	sock, err := netio.NewSocket(raw, account, b.writeTimeout())
	if err != nil {
		raw.Close()
		return nil, err
	}
	c := &Conn{Bare: l.Bare, resp3: l.State.RESP3, moves: moves}
	c.Carry(sock, nil)
	if password != "" {
		c.user, c.credentials = user, l.Credentials
	}
	deadline, _ := ctx.Deadline()
	raw.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	if err = b.secure(ctx, c, target); err == nil {
		begun := time.Now()
		err = c.introduce(&l, user, password)
		c.Trip = time.Since(begun)
	}
	if !stop() {
		err = ctx.Err() // and the socket is closed, whatever else it led to
	}
	if err != nil {
		if isTimeout(err) {
			err = fmt.Errorf("%w: %w", ErrSilent, err)
		}
		raw.Close()
		sock.Release()
		return nil, err
	}
	raw.SetReadDeadline(time.Time{})
	return c, nil
}

// reach opens a socket to the backend's address. It also returns the address as it is configured, and how often the backend had moved when
// its address was chosen.
func (b *Backend) reach(ctx context.Context) (raw net.Conn, target string, moves uint64, err error) {
	d := net.Dialer{KeepAlive: -1}
	network, target, err := b.c.Target()
	if err != nil {
		return nil, "", 0, fmt.Errorf("%w: %w", errSettings, err)
	}
	if b.address != nil {
		raw, moves, err = b.address.dial(ctx, &d, network, target)
	} else {
		raw, err = d.DialContext(ctx, network, target)
	}
	return raw, target, moves, err
}

// tls returns how to speak TLS with the backend; nil: it is reached in clear.
func (b *Backend) tls() *tls.Config {
	if b.c.TLS == nil {
		return nil
	}
	return b.c.TLS()
}

// secure makes the TLS connection, if one is configured.
func (b *Backend) secure(ctx context.Context, c *Conn, target string) error {
	if conf := b.tls(); conf != nil {
		if conf.ServerName == "" {
			host, _, _ := net.SplitHostPort(target)
			conf = conf.Clone()
			conf.ServerName = host
		}
		t := tls.Client(c.Socket, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			if r, ok := errors.AsType[tls.RecordHeaderError](err); ok && (r.RecordHeader[0] == '-' || r.RecordHeader[0] == '+') {
				return fmt.Errorf("%w: %w", ErrNoTLS, err)
			}
			return fmt.Errorf("%w: %w", ErrTLS, err)
		}
		c.Carry(c.Socket, t)
	}
	return nil
}
