package main

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"
)

// reconnectDelay is the pause after a failed connect.
const reconnectDelay = 5 * time.Millisecond

// commands drives the connections of a closedLoop, openLoop, storm, slowOne or laggards.
func (g *generator) commands(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if g.Command != setCommand {
		if err := g.fill(ctx); err != nil {
			return err
		}
	}
	config, err := g.configs(g.Connections + g.Laggards)
	if err != nil {
		return err
	}
	clients, err := g.dialAll(ctx, config)
	if err != nil {
		return err
	}
	if c := clients[0]; c.tls != nil {
		g.rec.shard(0).agreed(describe(c.tls.ConnectionState()))
	}
	drive := g.drive
	if g.Kind == openLoop {
		if g.pacer, err = newPacer(ctx, g.Rate, g.Connections); err != nil {
			return err
		}
		defer g.pacer.close()
		drive = g.pacer.drive
	}
	var running sync.WaitGroup
	sources := g.sources()
	for i, c := range clients {
		d := &driver{generator: g, config: config(i), shard: g.rec.shard(i), fresh: func() source { return sources(i) }}
		d.use(ctx, c)
		running.Go(func() { drive(ctx, d, i) }) // ends with ctx
	}
	switch g.Kind {
	case storm:
		running.Go(func() { g.greet(ctx) }) // ends with ctx
	case slowOne:
		running.Go(func() { g.askSlowly(ctx) }) // ends with ctx
	case laggards:
		g.before = func(window int) error {
			if window != 1 {
				return nil
			}
			return g.lag(ctx, &running, config)
		}
	}
	err = g.measure()
	cancel() // closes the connections too, which wakes the workers that wait for a reply
	running.Wait()
	return err
}

// driver keeps one connection busy. It belongs to one goroutine.
type driver struct {
	*generator
	config *tls.Config // nil: in clear
	c      *client     // nil: lost
	free   func() bool
	shard  *shard
	next   source
	fresh  func() source // a new source, since what a lost connection wrote is unknown
	batch  []exchange
}

// drive sends a pipeline, reads its replies, and so on until ctx ends.
func (g *generator) drive(ctx context.Context, d *driver, _ int) {
	for ctx.Err() == nil {
		if !d.connected(ctx) {
			continue
		}
		if err := d.turn(g.Pipeline); err != nil && ctx.Err() == nil {
			d.lose(err)
		}
	}
	d.end()
}

// connected makes sure that there is a connection, or counts why not.
func (d *driver) connected(ctx context.Context) bool {
	if d.c != nil {
		return true
	}
	c, err := dial(ctx, d.Address, d.config)
	if err != nil {
		if ctx.Err() == nil {
			d.shard.fail(err)
			time.Sleep(reconnectDelay)
		}
		return false
	}
	d.use(ctx, c)
	return true
}

// use takes c, which ctx closes.
func (d *driver) use(ctx context.Context, c *client) {
	d.c, d.next = c, d.fresh()
	d.free = context.AfterFunc(ctx, c.abort)
}

func (d *driver) lose(err error) {
	d.shard.fail(err)
	d.end()
}

func (d *driver) end() {
	if d.c != nil {
		d.free()
		d.c.abort()
		d.c = nil
	}
}

// turn sends n commands and reads their replies. A reply's latency runs from the first byte sent. An error reply is
// counted and the rest read on; every other error ends the connection.
func (d *driver) turn(n int) error {
	d.batch = d.batch[:0]
	began := time.Now()
	d.c.conn.SetReadDeadline(began.Add(replyTimeout))
	for range n {
		e := d.next()
		d.batch = append(d.batch, e)
		if _, err := d.c.w.Write(e.command); err != nil {
			return err
		}
	}
	if err := d.c.w.Flush(); err != nil {
		return err
	}
	good := 0
	for i, e := range d.batch {
		err := d.c.reply(e.reply)
		var refused errorReply
		switch {
		case err == nil:
			good++
		case errors.As(err, &refused):
			d.shard.fail(err)
		default:
			return err
		}
		// One lock for all replies that came together.
		if good > 0 && (i == n-1 || d.c.r.Buffered() == 0) {
			d.shard.add(good, time.Since(began))
			good = 0
		}
	}
	return nil
}
