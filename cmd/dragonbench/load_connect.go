package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"sync"
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
		})
	}
	err := g.measure()
	cancel()
	running.Wait()
	return err
}

// errFirst says that a handshake could not be a resumed one, since there was none before it.
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
	if err := c.endOrderly(); err != nil {
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

// endOrderly closes our side and waits for the peer's end. A peer that did not accept our certificate sends an alert
// instead; the session ticket comes on the way too.
func (c *client) endOrderly() error {
	if c.tls == nil {
		return nil
	}
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	_, err := c.tls.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // with or without a close_notify of its own
	}
	if err == nil {
		return errWrongReply
	}
	return err
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
