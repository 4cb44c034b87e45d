package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idle connects everybody, asks each once, and holds still.
func (g *generator) idle() error {
	ctx := context.Background()
	config, err := g.configs(g.Connections)
	if err != nil {
		return err
	}
	clients, err := g.dialAll(ctx, config)
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
