package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// errUnmeasurable says that a row cannot be measured here or with this peer; it is a result, not a fault.
var errUnmeasurable = errors.New("not measurable")

// bench is a run.
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
			// Who comes first changes from round to round.
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

// shares are what others used of the machine, and what the hypervisor took, while commands were measured.
func (b *bench) shares() (others, steal spread) {
	var o, s []float64
	for _, r := range b.results {
		for _, one := range r.Samples {
			if one.Rate > 0 && one.LoadCPU > 0 {
				o, s = append(o, one.OthersCPU), append(s, one.Steal)
			}
		}
	}
	return spreadOf(o), spreadOf(s)
}

// report is everything that the formats show.
func (b *bench) report(m machine, took time.Duration, command string) *report {
	rep := &report{
		Machine: m, Backend: b.rig.backendIs, Command: command, Plan: b.plan.name, Rounds: b.plan.rounds,
		WindowSeconds: b.plan.seconds.Seconds(), TookSeconds: took.Seconds(), Missing: b.rig.missing, Results: b.results,
		Rows: b.plan.rows, Warnings: m.warnings(), Load: "dragonbench",
	}
	if b.redisBenchmark != "" {
		rep.Load = "dragonbench, checked by redis-benchmark"
		rep.Checks = checkGenerator(b.results)
	}
	for _, f := range b.rig.peers {
		rep.Peers = append(rep.Peers, peerReport{f.name, f.version, f.path, f.reloads})
	}
	others, steal := b.shares()
	if others.Median > busyShare {
		rep.Warnings = append(rep.Warnings, fmt.Sprintf("other processes used %.0f %% of the machine while it was measured "+
			"(median; at most %.0f %%): run again when it is quiet", 100*others.Median, 100*others.Max))
	}
	if steal.Median > stealShare {
		rep.Warnings = append(rep.Warnings, fmt.Sprintf("the hypervisor took %.0f %% of the CPU time (median)", 100*steal.Median))
	}
	rep.Warnings = append(rep.Warnings, unequalSessions(b.results)...)
	rep.Verdicts = judge(rep)
	return rep
}

// checkGenerator compares our own generator with redis-benchmark.
func checkGenerator(results []*result) (checks []string) {
	for _, r := range results {
		peer, check := strings.CutSuffix(r.Peer, byRedisBenchmark)
		own := find(results, r.Row, peer)
		if !check || own == nil || len(own.Samples) == 0 || len(r.Samples) == 0 {
			continue
		}
		checks = append(checks, fmt.Sprintf("%s, %s: our throughput is %s of redis-benchmark's", r.Row, peer, showSpread(ratio(own, r, rate), "")))
	}
	return checks
}

// unequalSessions warns where peers did not agree on the same cipher and key exchange.
func unequalSessions(results []*result) (warnings []string) {
	seen := map[string]string{}
	for _, r := range results {
		for _, s := range r.Samples {
			if s.Session != "" {
				seen[r.Peer] = s.Session
			}
		}
	}
	first := ""
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if first == "" {
			first = name
		}
		if seen[name] != seen[first] {
			warnings = append(warnings, fmt.Sprintf("%s agreed on %s, %s on %s: not the same work", first, seen[first], name, seen[name]))
		}
	}
	return warnings
}
