package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
)

// keys is how many keys the generator reads and writes: enough to tell a reply that belongs to another command.
const keys = 64

// benchmarkKey is the one key that redis-benchmark uses when it is not told to make some up.
const benchmarkKey = "key:__rand_int__"

// exchange is a command with the reply that is due.
type exchange struct{ command, reply []byte }

func keyName(i int) string { return fmt.Sprintf("dragonbench:%04d", i) }

// value is size bytes that name the connection that wrote them.
func value(name string, size int) string {
	return strings.Repeat(name+" ", size/(len(name)+1)+1)[:size]
}

func get(key, value string) exchange {
	return exchange{encodeCommand("GET", key), appendBulk(nil, value)}
}

func set(key, value string) exchange {
	return exchange{encodeCommand("SET", key, value), okReply}
}

func (g *generator) exchanges(of func(key, value string) exchange) (all []exchange) {
	for i := range keys {
		all = append(all, of(keyName(i), value(keyName(i), g.Size)))
	}
	return all
}

// fill writes what will be read.
func (g *generator) fill(ctx context.Context) error {
	c, err := dial(ctx, g.Address, g.tls)
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	defer c.abort()
	all := append(g.exchanges(set), set(benchmarkKey, value(benchmarkKey, g.Size)))
	switch g.Kind {
	case slowOne:
		all = append(all, set(slowKey, value(slowKey, g.Size)))
	case laggards:
		all = append(all, set(largeKey, value(largeKey, largeSize)))
	}
	for _, s := range all {
		if err := c.ask(s.command, s.reply); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	return nil
}

// source yields a connection's next exchange.
type source func() exchange

// sources makes a source for each connection. The same bytes serve all of them, but for mixed.
func (g *generator) sources() func(connection int) source {
	if g.Command == mixedCommand {
		var made atomic.Int64
		return func(connection int) source { return g.mixed(connection, made.Add(1)) }
	}
	of := get
	if g.Command == setCommand {
		of = set
	}
	all := g.exchanges(of)
	return func(connection int) source {
		next := connection // spread over the keys
		return func() exchange {
			next++
			return all[next%len(all)]
		}
	}
}

// mixed writes a value that nobody wrote before to a key of its own, reads it nine times, and so on.
func (g *generator) mixed(connection int, unique int64) source {
	key := fmt.Sprintf("dragonbench:own:%04d", connection)
	count := 0
	var read exchange
	return func() exchange {
		count++
		if count%10 != 1 {
			return read
		}
		own := value(fmt.Sprintf("%d/%d", unique, count), g.Size)
		read = get(key, own)
		return set(key, own)
	}
}
