package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// slowKey takes the model slowTime to read.
	slowTime = "200ms"
	slowKey  = slowKeyPrefix + slowTime

	// Each laggard asks for lagPipeline values of largeSize at once.
	largeKey    = "dragonbench:large"
	largeSize   = 1 << 20
	lagPipeline = 4
	// lagBuffer is how much the kernel may keep of what a laggard has not read; it takes twice as much.
	lagBuffer = 64 << 10
	// lagRate is how many bytes a second a laggard reads that reads at all.
	lagRate = 700 << 10
	// lagTimeout ends a laggard's wait for the replies to one pipeline.
	lagTimeout = time.Minute
	// lagReconnectDelay is the pause after a laggard's connection was closed.
	lagReconnectDelay = 200 * time.Millisecond
)

// askSlowly sends slow commands at a fixed rate until ctx ends, on a connection of its own.
func (g *generator) askSlowly(ctx context.Context) {
	ticker := time.NewTicker(time.Duration(float64(time.Second) / g.Rate))
	defer ticker.Stop()
	d := &driver{generator: g, config: g.tls, shard: g.rec.shard(0), fresh: func() source { return nil }}
	defer d.end()
	slow := get(slowKey, value(slowKey, g.Size))
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !d.connected(ctx) {
			continue
		}
		err := d.c.ask(slow.command, slow.reply)
		switch {
		case err == nil:
			d.shard.slowOneAnswered()
		case ctx.Err() == nil:
			d.lose(err)
		}
	}
}

// lag connects the laggards and starts them. Every second one reads nothing, the others read slowly. With Together they show
// one certificate, else each its own; the clients that keep up show others. It returns when all of them are connected.
func (g *generator) lag(ctx context.Context, running *sync.WaitGroup, config func(i int) *tls.Config) error {
	clients, err := connectAll(g.Laggards, func(i int) (*client, error) { return g.dialLaggard(ctx, config(g.laggardCertificate(i))) })
	if err != nil {
		return err
	}
	for i, c := range clients {
		l := &laggard{generator: g, config: config(g.laggardCertificate(i)), shard: g.rec.shard(i), stuck: i%2 == 0}
		running.Go(func() { l.run(ctx, c) }) // ends with ctx
	}
	return nil
}

// laggardCertificate is which of the certificates laggard i shows.
func (g *generator) laggardCertificate(i int) int {
	if g.Together {
		i = 0
	}
	return g.Connections + i
}

// laggard is a client that does not keep up. It belongs to one goroutine.
type laggard struct {
	*generator
	config *tls.Config
	shard  *shard
	stuck  bool // reads nothing
}

// run asks again and again, over a new connection where the peer closed the one before. A laggard that reads nothing does not
// learn of that: it asks once.
func (l *laggard) run(ctx context.Context, c *client) {
	for ctx.Err() == nil {
		err := l.ask(ctx, c)
		c.abort()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errWrongReply) {
			l.shard.fail(err)
		}
		l.shard.laggardClosed()
		if c = l.again(ctx); c == nil {
			return
		}
	}
	c.abort()
}

// again connects until it succeeds. It returns nil once ctx has ended.
func (l *laggard) again(ctx context.Context) *client {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lagReconnectDelay):
		}
		if c, err := l.dialLaggard(ctx, l.config); err == nil {
			return c
		}
	}
}

// ask sends pipelines and reads the replies until the connection or ctx ends.
func (l *laggard) ask(ctx context.Context, c *client) error {
	defer context.AfterFunc(ctx, c.abort)()
	large := get(largeKey, value(largeKey, largeSize))
	for {
		c.conn.SetDeadline(time.Now().Add(lagTimeout))
		for range lagPipeline {
			if _, err := c.w.Write(large.command); err != nil {
				return err
			}
		}
		if err := c.w.Flush(); err != nil {
			return err
		}
		if l.stuck {
			<-ctx.Done()
			return ctx.Err()
		}
		for range lagPipeline {
			if err := c.reply(large.reply); err != nil {
				return err
			}
		}
	}
}

// dialLaggard connects a client that reads at lagRate, and whose kernel does not read on in its place.
func (g *generator) dialLaggard(ctx context.Context, config *tls.Config) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", g.Address)
	if err != nil {
		return nil, err
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(lagBuffer); err != nil {
		conn.Close()
		return nil, err
	}
	c, err := handshake(ctx, conn, config)
	if err != nil {
		return nil, err
	}
	c.r.Reset(&slowReader{c.conn})
	return c, nil
}

// slowReader never reads faster than lagRate, not even to catch up after a wait.
type slowReader struct{ conn net.Conn }

func (s *slowReader) Read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	time.Sleep(time.Duration(n) * time.Second / lagRate)
	return n, err
}
