//go:build !linux

package main

import "time"

// clock ticks at an interval.
type clock struct {
	ticker   *time.Ticker
	interval time.Duration
	last     time.Time
	closed   chan struct{}
}

func newClock(interval time.Duration) (*clock, error) {
	return &clock{time.NewTicker(interval), interval, time.Now(), make(chan struct{})}, nil
}

// ticks waits for the next tick and returns how many there were since the last call.
func (c *clock) ticks() (uint64, error) {
	select {
	case <-c.ticker.C:
	case <-c.closed:
		return 0, errClosed
	}
	n := time.Since(c.last) / c.interval
	c.last = c.last.Add(n * c.interval)
	return uint64(n), nil
}

func (c *clock) close() { close(c.closed) }
