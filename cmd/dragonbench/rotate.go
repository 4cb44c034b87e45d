package main

import (
	"context"
	"sync"
	"time"
)

// rotator replaces the server certificate of an instance again and again.
type rotator struct {
	i       *instance
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	count   int   // valid behind stop
	err     error // valid behind stop
}

func newRotator(ctx context.Context, i *instance) *rotator {
	ctx, cancel := context.WithCancel(ctx)
	return &rotator{i: i, ctx: ctx, cancel: cancel}
}

func (r *rotator) start() { r.running.Go(r.run) } // ends with stop

func (r *rotator) run() {
	ticker := time.NewTicker(rotationInterval)
	defer ticker.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-ticker.C:
		}
		if r.err = r.rotate(); r.err != nil {
			return
		}
		r.count++
	}
}

func (r *rotator) rotate() error {
	if err := r.i.authority.rotate(); err != nil {
		return err
	}
	return r.i.reload(r.ctx, r.i)
}

// stop may be called more than once.
func (r *rotator) stop() {
	r.cancel()
	r.running.Wait()
}
