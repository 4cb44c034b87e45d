package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var errNotResumed = errors.New("session not resumed")

// connects makes new connections as fast as it can, Connections of them at a time.
func (g *generator) connects(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if g.Kind == churn {
		if err := g.fill(ctx); err != nil {
			return err
		}
	}
	sources := g.sources()
	var running sync.WaitGroup
	for i := range g.Connections {
		running.Go(func() { // ends with ctx
			config, next, shard := g.ownConfig(), sources(i), g.rec.shard(i)
			for ctx.Err() == nil {
				g.attempt(ctx, config, next, shard)
			}
		})
	}
	err := g.measure()
	cancel()
	running.Wait()
	return err
}

// attempt makes one connection and counts it, or why there is none.
func (g *generator) attempt(ctx context.Context, config *tls.Config, next source, shard *shard) {
	began := time.Now()
	err := g.connect(ctx, config, next)
	switch {
	case err == nil:
		shard.add(1, time.Since(began))
	case ctx.Err() == nil && !errors.Is(err, errFirst):
		shard.fail(err)
		time.Sleep(reconnectDelay)
	}
}

// bursts makes Burst connections as fast as it can, Connections of them at a time, once in each window.
func (g *generator) bursts(ctx context.Context) error {
	configs := make([]*tls.Config, g.Connections)
	for i := range configs {
		configs[i] = g.ownConfig()
		if !g.Resume {
			continue
		}
		if err := g.connect(ctx, configs[i], nil); !errors.Is(err, errFirst) {
			return fmt.Errorf("get a ticket: %w", err)
		}
	}
	g.during = func(pause time.Duration) time.Duration {
		began := time.Now()
		g.burst(ctx, configs)
		took := time.Since(began)
		time.Sleep(pause)
		return took
	}
	return g.measure()
}

func (g *generator) burst(ctx context.Context, configs []*tls.Config) {
	var left atomic.Int64
	left.Store(int64(g.Burst))
	var running sync.WaitGroup
	for i, config := range configs {
		running.Go(func() { // ends with the burst
			for left.Add(-1) >= 0 {
				g.attempt(ctx, config, nil, g.rec.shard(i))
			}
		})
	}
	running.Wait()
}

// errFirst means that a handshake could not be a resumed one, since there was none before it.
var errFirst = errors.New("first handshake")

// ownConfig gives a goroutine its own session cache, if it is to resume.
func (g *generator) ownConfig() *tls.Config {
	if g.tls == nil || !g.Resume {
		return g.tls
	}
	config := g.tls.Clone()
	config.ClientSessionCache = &lastSession{}
	return config
}

func (g *generator) connect(ctx context.Context, config *tls.Config, next source) error {
	first := false
	if g.Resume {
		_, known := config.ClientSessionCache.Get("")
		first = !known
	}
	c, err := dial(ctx, g.Address, config)
	if err != nil {
		return err
	}
	defer c.abort()
	defer context.AfterFunc(ctx, c.abort)()
	c.conn.SetDeadline(time.Now().Add(connectTimeout))
	if g.Kind == churn {
		e := next()
		return c.ask(e.command, e.reply)
	}
	if err := c.end(g.Orderly); err != nil {
		return err
	}
	if c.tls != nil {
		state := c.tls.ConnectionState()
		g.rec.shard(0).agreed(describe(state))
		switch {
		case first:
			return errFirst
		case g.Resume && !state.DidResume:
			return errNotResumed
		}
	}
	return nil
}

// end sends close_notify and waits for the peer's end. A peer that did not accept our certificate sends an alert instead; the
// session ticket comes on the way too. With orderly it also sends a FIN and waits for the peer's; without, abort resets the
// connection.
func (c *client) end(orderly bool) error {
	if c.tls == nil {
		return nil
	}
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	raw := c.tls.NetConn().(*net.TCPConn)
	if orderly {
		if err := raw.CloseWrite(); err != nil {
			return err
		}
	}
	_, err := c.tls.Read(make([]byte, 1))
	switch {
	case err == nil:
		return errWrongReply
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF): // with or without a close_notify of its own
		return err
	case !orderly:
		return nil
	}
	if _, err := io.Copy(io.Discard, raw); err != nil && !errors.Is(err, syscall.ECONNRESET) { // a reset is an end too
		return err
	}
	return raw.Close()
}

// lastSession is a session cache for one server and one goroutine.
type lastSession struct{ state *tls.ClientSessionState }

func (l *lastSession) Get(string) (*tls.ClientSessionState, bool) { return l.state, l.state != nil }
func (l *lastSession) Put(_ string, s *tls.ClientSessionState)    { l.state = s }

// greet makes new connections beside a storm of rotations, at a fixed rate, and notes which certificate they were shown.
func (g *generator) greet(ctx context.Context) {
	const atOnce = 8
	ticker := time.NewTicker(time.Duration(float64(time.Second) / g.Rate))
	defer ticker.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	for i := range atOnce {
		running.Go(func() { // ends with ctx
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				leaf, err := g.handshakeAndPing(ctx)
				switch {
				case err == nil:
					g.rec.shard(i).met(leaf)
				case ctx.Err() == nil:
					g.rec.shard(i).fail(err)
				}
			}
		})
	}
}

func (g *generator) handshakeAndPing(ctx context.Context) (leaf string, err error) {
	c, err := dial(ctx, g.Address, g.tls)
	if err != nil {
		return "", err
	}
	defer c.abort()
	defer context.AfterFunc(ctx, c.abort)()
	if err := c.ask(pingCommandBytes, pongReply); err != nil {
		return "", err
	}
	if c.tls == nil {
		return "", nil
	}
	return c.tls.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}
