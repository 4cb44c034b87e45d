package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// pacer says when commands are due: at a fixed rate, one connection after the other, however slow the peer is.
// Latency counts from the moment a command was due, so that commands that queue behind a stalled one are not left out
// (coordinated omission). A connection that is late sends its next command as soon as the reply before it is there.
type pacer struct {
	clock    *clock
	started  time.Time
	interval time.Duration
	queues   []*queue
}

// queue holds one connection's commands. They are answered in order, so that two counts and a formula are all it takes.
type queue struct {
	due, done atomic.Int64
	wake      chan struct{} // due has grown
}

func newPacer(ctx context.Context, rate float64, connections int) (*pacer, error) {
	if rate <= 0 {
		return nil, fmt.Errorf("rate %v: must be above zero", rate)
	}
	p := &pacer{interval: time.Duration(float64(time.Second) / rate), started: time.Now()}
	for range connections {
		p.queues = append(p.queues, &queue{wake: make(chan struct{}, 1)})
	}
	var err error
	if p.clock, err = newClock(p.interval); err != nil {
		return nil, err
	}
	go p.run(ctx) // ends when the clock is closed
	return p, nil
}

func (p *pacer) close() { p.clock.close() }

func (p *pacer) run(ctx context.Context) {
	for tick := 0; ctx.Err() == nil; {
		n, err := p.clock.ticks()
		if err != nil {
			return
		}
		for range n {
			q := p.queues[tick%len(p.queues)]
			tick++
			q.due.Add(1)
			select {
			case q.wake <- struct{}{}:
			default: // it will look
			}
		}
	}
}

// dueAt is when command k, from 0, of connection i is due.
func (p *pacer) dueAt(i int, k int64) time.Time {
	tick := time.Duration(k)*time.Duration(len(p.queues)) + time.Duration(i) + 1
	return p.started.Add(tick * p.interval)
}

// drive sends the commands of connection i until ctx ends.
func (p *pacer) drive(ctx context.Context, d *driver, i int) {
	defer d.end()
	q := p.queues[i]
	for ctx.Err() == nil {
		if q.done.Load() == q.due.Load() {
			select {
			case <-ctx.Done():
			case <-q.wake:
			}
			continue
		}
		d.answer(ctx, p.dueAt(i, q.done.Load()))
		q.done.Add(1)
	}
}

// answer sends one command that is due since then.
func (d *driver) answer(ctx context.Context, due time.Time) {
	for !d.connected(ctx) {
		if ctx.Err() != nil {
			return
		}
	}
	e := d.next()
	err := d.c.ask(e.command, e.reply)
	switch {
	case err == nil:
		d.shard.add(1, time.Since(due))
	case ctx.Err() == nil:
		d.lose(err)
	}
}

// overdue adds the commands that still wait at the end of a window, as if they were answered now: the peer that never answers
// again must not look fast.
func (p *pacer) overdue(rec *recorder, now time.Time) {
	for i, q := range p.queues {
		for k := q.done.Load(); k < q.due.Load(); k++ {
			rec.shard(i).wait(now.Sub(p.dueAt(i, k)))
		}
	}
}
