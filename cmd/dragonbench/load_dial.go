package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
)

// configs returns the TLS configuration of each of n connections. With a file of certificates each connection shows its own,
// else all show the same.
func (g *generator) configs(n int) (func(i int) *tls.Config, error) {
	if g.Clients == "" || g.tls == nil {
		return func(int) *tls.Config { return g.tls }, nil
	}
	bundle, err := os.ReadFile(g.Clients)
	if err != nil {
		return nil, err
	}
	pairs, err := splitPairs(bundle)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", g.Clients, err)
	}
	if len(pairs) < n {
		return nil, fmt.Errorf("read %q: %d certificates for %d connections", g.Clients, len(pairs), n)
	}
	return func(i int) *tls.Config {
		config := g.tls.Clone()
		config.Certificates = pairs[i : i+1]
		return config
	}, nil
}

// dialAll connects the clients of a work.
func (g *generator) dialAll(ctx context.Context, config func(i int) *tls.Config) ([]*client, error) {
	return connectAll(g.Connections, func(i int) (*client, error) { return dial(ctx, g.Address, config(i)) })
}

// connectAll calls connect for each of n clients, a few at a time: a backlog that overflows costs a second.
func connectAll(n int, connect func(i int) (*client, error)) ([]*client, error) {
	const atOnce = 32
	clients := make([]*client, n)
	errs := make([]error, atOnce)
	var connecting sync.WaitGroup
	for worker := range atOnce {
		connecting.Go(func() { // ends with its share
			for i := worker; i < n; i += atOnce {
				if clients[i], errs[worker] = connect(i); errs[worker] != nil {
					return
				}
			}
		})
	}
	connecting.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, c := range clients {
			if c != nil {
				c.abort()
			}
		}
		return nil, fmt.Errorf("connect %d clients: %w", n, err)
	}
	return clients, nil
}
