package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// errUnmeasurable means that a row cannot be measured here or with this peer; it is a result, not a fault.
var errUnmeasurable = errors.New("not measurable")

// bench is the part of a run in front of one backend.
type bench struct {
	plan           plan
	rig            *rig
	redisBenchmark string // its path: it checks our own generator; "": no check
	progress       *progress
	instances      map[string]*instance // of each peer, for rows that share one
	results        []*result
	capacity       *result // of what capacityRow says; nil: not measured yet
}

// run takes every row in interleaved rounds: each round asks all peers, one after the other, so that what the machine
// does over minutes meets all of them.
func (b *bench) run(ctx context.Context) error {
	b.instances = map[string]*instance{}
	for _, f := range b.rig.peers {
		i, err := b.rig.start(ctx, f, startOptions{})
		if err != nil {
			return err
		}
		b.instances[f.name] = i
	}
	for n := range b.plan.rows {
		if err := b.row(ctx, &b.plan.rows[n]); err != nil {
			return err
		}
	}
	return nil
}

// stop ends what run started, so that it takes nothing from the runs that come after it.
func (b *bench) stop() {
	for _, i := range b.instances {
		i.stop()
	}
}

func (b *bench) row(ctx context.Context, r *row) error {
	var results []*result
	for _, f := range b.rig.peers {
		if r.takes(f.peer) {
			results = append(results, &result{Row: r.ID, Peer: f.name})
			if b.redisBenchmark != "" && r.redisBenchmarkCan() {
				results = append(results, &result{Row: r.ID, Peer: f.name + byRedisBenchmark})
			}
		}
	}
	b.results = append(b.results, results...)
	if r.share > 0 {
		why, err := b.setRate(ctx, r)
		if err != nil {
			return err
		}
		for _, res := range results {
			res.Unmeasured = why
		}
	}
	rounds := b.plan.roundsOf(r)
	for round := range rounds {
		for n := range results {
			// A different peer comes first in each round.
			res := results[(n+round)%len(results)]
			b.progress.step(r, res.Peer, round+1, rounds)
			if err := b.sample(ctx, r, res); err != nil {
				return err
			}
			b.progress.done(b.plan.sampleTime(r))
		}
	}
	return nil
}

func (b *bench) sample(ctx context.Context, r *row, res *result) error {
	if res.Unmeasured != "" {
		return nil
	}
	measure := r.measure
	peer, check := strings.CutSuffix(res.Peer, byRedisBenchmark)
	if check {
		measure = (*bench).measureRedisBenchmark
	}
	s, err := measure(b, ctx, r, b.instances[peer])
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errClosed):
		return err
	case err != nil:
		res.Unmeasured = err.Error()
		return b.revive(ctx, peer)
	}
	res.Samples = append(res.Samples, s)
	return nil
}

// revive starts a peer again that did not survive.
func (b *bench) revive(ctx context.Context, name string) error {
	i := b.instances[name]
	if ping(ctx, i.address, i.clientFiles()) == nil {
		return nil
	}
	i.stop()
	again, err := b.rig.start(ctx, i.found, startOptions{})
	if err != nil {
		return fmt.Errorf("it ended, and: %w", err)
	}
	b.instances[name] = again
	return nil
}

// find returns a result, or nil.
func find(results []*result, row, peer string) *result {
	n := slices.IndexFunc(results, func(r *result) bool { return r.Row == row && r.Peer == peer })
	if n < 0 {
		return nil
	}
	return results[n]
}
