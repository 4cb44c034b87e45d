package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"
)

// idle connects everybody, asks each once, holds still, and at the end asks each again.
func (g *generator) idle() error {
	ctx := context.Background()
	clients, err := g.dialEach(ctx)
	if err != nil {
		return err
	}
	for _, c := range clients {
		defer c.abort()
		if err := c.ask(pingCommandBytes, pongReply); err != nil {
			return fmt.Errorf("ask an idle connection: %w", err)
		}
	}
	return g.measure()
}

// outage asks for a PONG again and again. Once a line comes from the parent, the first good reply to a PING that was
// sent after it ends the work.
func (g *generator) outage() error {
	ctx := context.Background()
	c, err := dial(ctx, g.Address, g.tls)
	if err != nil {
		return err
	}
	if err := c.ask(pingCommandBytes, pongReply); err != nil {
		return err
	}
	g.tell(event{Event: "start"})
	if err := g.proceed(); err != nil {
		return err
	}
	w := window{Errors: map[string]int{}}
	began := time.Now()
	for {
		err := g.askAgain(ctx, &c)
		if err == nil {
			break
		}
		w.Errors[errorKind(err)]++
		if time.Since(began) > time.Minute {
			return errors.New("no good reply within a minute")
		}
		time.Sleep(time.Millisecond)
	}
	w.FirstReply = time.Now().UnixNano()
	w.Seconds, w.Count = time.Since(began).Seconds(), 1
	g.tell(event{Event: "stop", Window: &w})
	return g.proceed()
}

// askAgain uses the connection while it lasts.
func (g *generator) askAgain(ctx context.Context, c **client) (err error) {
	if *c == nil {
		if *c, err = dial(ctx, g.Address, g.tls); err != nil {
			return err
		}
	}
	err = (*c).ask(pingCommandBytes, pongReply)
	var refused errorReply
	if err != nil && !errors.As(err, &refused) {
		(*c).abort()
		*c = nil
	}
	return err
}

// dialEach is dialAll, with a certificate of its own for each client where there is a file of them.
func (g *generator) dialEach(ctx context.Context) ([]*client, error) {
	if g.Clients == "" {
		return g.dialAll(ctx, func(int) *tls.Config { return g.tls })
	}
	bundle, err := os.ReadFile(g.Clients)
	if err != nil {
		return nil, err
	}
	pairs, err := splitPairs(bundle)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", g.Clients, err)
	}
	if len(pairs) < g.Connections {
		return nil, fmt.Errorf("read %q: %d certificates for %d connections", g.Clients, len(pairs), g.Connections)
	}
	return g.dialAll(ctx, func(i int) *tls.Config {
		config := g.tls.Clone()
		config.Certificates = pairs[i : i+1]
		return config
	})
}
