package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// newReport sums up what was measured in front of each backend.
func newReport(p plan, benches []*bench, m machine, took time.Duration, command string) *report {
	rep := &report{
		Machine: m, Command: command, Plan: p.name, Rounds: p.rounds, WindowSeconds: p.seconds.Seconds(), TookSeconds: took.Seconds(),
		Warnings: m.warnings(), Load: "dragonbench",
	}
	var all []*result
	for _, b := range benches {
		rep.Backends = append(rep.Backends, b.report())
		all = append(all, b.results...)
		if b.redisBenchmark != "" {
			rep.Load = "dragonbench, checked by redis-benchmark"
			rep.Checks = append(rep.Checks, checkGenerator(b.results)...)
		}
	}
	others, steal := shares(all)
	if others.Median > busyShare {
		rep.Warnings = append(rep.Warnings, fmt.Sprintf("other processes used %.0f %% of the machine while it was measured "+
			"(median; at most %.0f %%): run again when it is quiet", 100*others.Median, 100*others.Max))
	}
	if steal.Median > stealShare {
		rep.Warnings = append(rep.Warnings, fmt.Sprintf("the hypervisor took %.0f %% of the CPU time (median)", 100*steal.Median))
	}
	rep.Warnings = append(rep.Warnings, unequalSessions(all)...)
	rep.Verdicts = judge(rep)
	return rep
}

// report is what was measured in front of this backend.
func (b *bench) report() *backendReport {
	rep := &backendReport{Name: b.rig.backendIs, Figures: b.rig.backend.figures(), Missing: b.rig.missing, Rows: b.plan.rows, Results: b.results}
	for _, f := range b.rig.peers {
		rep.Peers = append(rep.Peers, peerReport{f.name, f.version, f.path, f.reloads})
	}
	return rep
}

// shares are what others used of the machine, and what the hypervisor took, while commands were measured.
func shares(results []*result) (others, steal spread) {
	var o, s []float64
	for _, r := range results {
		for _, one := range r.Samples {
			if one.Rate > 0 && one.LoadCPU > 0 {
				o, s = append(o, one.OthersCPU), append(s, one.Steal)
			}
		}
	}
	return spreadOf(o), spreadOf(s)
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
