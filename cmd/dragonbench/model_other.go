//go:build !linux

package main

import "time"

// nap is how a connection of the model sleeps.
type nap struct{}

func newNap() (*nap, error) { return &nap{}, nil }

func (n *nap) take(d time.Duration) error {
	time.Sleep(d)
	return nil
}

func (n *nap) close() {}
