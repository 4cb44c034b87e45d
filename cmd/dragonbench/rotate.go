package main

import (
	"context"
	"sync"
	"time"
)

// rotator replaces the server certificate of an instance again and again.
type rotator struct {
	i       *instance
	start   func() // once
	cancel  context.CancelFunc
	running sync.WaitGroup
	count   int   // valid after stop
	err     error // valid behind stop
}

func newRotator(ctx context.Context, i *instance) *rotator {
	r := &rotator{i: i}
	ctx, r.cancel = context.WithCancel(ctx)
	r.start = func() { r.running.Go(func() { r.run(ctx) }) } // ends with stop
	return r
}

func (r *rotator) run(ctx context.Context) {
	ticker := time.NewTicker(rotationInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if r.err = r.rotate(ctx); r.err != nil {
			return
		}
		r.count++
	}
}

func (r *rotator) rotate(ctx context.Context) error {
	if err := r.i.authority.rotate(); err != nil {
		return err
	}
	return r.i.reload(ctx, r.i)
}

// stop may be called more than once.
func (r *rotator) stop() {
	r.cancel()
	r.running.Wait()
}
