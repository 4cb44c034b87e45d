package main

import "fmt"

// The backends that have figures to reach. The model stands for Dragonfly.
const (
	figuresRedis     = "Redis"
	figuresDragonfly = "Dragonfly"
	figuresModel     = "model"
	figuresSlow      = "slow"
)

// goal is a figure to reach, of dragontls against a peer in the same row, or against another row of its own.
type goal struct {
	work     string
	row      string
	against  string // peer; "": the figure itself
	otherRow string // row that the figure is divided by; empty if there is none
	metric   metric
	atMost   bool    // else at least
	want     float64 // in front of Redis, and of Dragonfly unless dragonfly says otherwise; 0: no goal there
	// dragonfly is what is wanted in front of Dragonfly alone; 0: want.
	dragonfly float64
	slow      float64 // in front of a backend that takes 100 us for each command; 0: no goal there
	unit      string
	scale     float64 // of the figure itself; 0: 1
	only      string  // the mode of dragontls that the goal is about; "": shared where there is one
}

// wantedOn is what a goal wants in front of a backend; 0: nothing.
func (g goal) wantedOn(figures string) float64 {
	switch figures {
	case figuresRedis:
		return g.want
	case figuresDragonfly, figuresModel:
		if g.dragonfly > 0 {
			return g.dragonfly
		}
		return g.want
	case figuresSlow:
		return g.slow
	}
	return 0
}

// goals are those of section 8 of the design that can be seen from outside, and what slow clients and slow commands may cost.
func goals() []goal {
	const c50, c500, c1, p16 = "get-64B-c50-p1", "get-64B-c500-p1", "get-64B-c1-p1", "get-64B-c50-p16"
	const full, burst = "handshake-full", "handshake-full-burst-orderly"
	const haproxy, ghostunnel = haproxyName, "ghostunnel"
	all := []goal{
		{work: "50 connections: throughput", row: c50, against: haproxy, metric: rate, want: 1.6, dragonfly: 1.5},
		{work: "50 connections: throughput", row: c50, against: ghostunnel, metric: rate, want: 1.6, dragonfly: 1.5},
		{work: "50 connections: throughput", row: c50, against: ownTLSName, metric: rate, want: 1.0, dragonfly: 0.9},
		{work: "50 connections: throughput", row: c50, against: oldShared, metric: rate, dragonfly: 1.15},
		{work: "500 connections: throughput", row: c500, against: haproxy, metric: rate, want: 2.0},
		{work: "500 connections: throughput", row: c500, against: ghostunnel, metric: rate, want: 2.0},
		{work: "500 connections: throughput", row: c500, against: ownTLSName, metric: rate, want: 1.1},
		{work: "pipeline of 16, 50 connections: throughput", row: p16, against: haproxy, metric: rate, want: 1.4},
		{work: "pipeline of 16, 50 connections: throughput", row: p16, against: ownTLSName, metric: rate, want: 0.95},
		{work: "pipeline of 16, 50 connections: throughput", row: p16, against: oldShared, metric: rate, dragonfly: 1.3},
		{work: "1 connection: p50", row: c1, against: ghostunnel, metric: p50, atMost: true, want: 0.6},
		{work: "1 connection: p50", row: c1, against: haproxy, metric: p50, atMost: true, want: 0.85},
		{work: "1 connection: p50", row: c1, against: ownTLSName, metric: p50, atMost: true, want: 1.1},
		{work: "CPUs in use at 50 connections", row: c50, against: haproxy, metric: cpusInUse, want: 1.0},
		{work: "50 connections: backend CPU per command", row: c50, against: ownTLSName, metric: backendCPU, atMost: true, want: 0.14, dragonfly: 0.3},
		{work: "500 connections: backend CPU per command", row: c500, against: ownTLSName, metric: backendCPU, atMost: true, want: 0.05, dragonfly: 0.12},
		{work: "50 connections: proxy CPU per command", row: c50, against: haproxy, metric: proxyCPU, atMost: true, want: 0.5},
		{work: "paired, 50 connections: proxy CPU per command", row: c50, against: haproxy, metric: proxyCPU, atMost: true, want: 1.0, only: paired},
		{work: "full handshakes a second", row: full, against: haproxy, metric: rate, want: 1.9},
		{work: "full handshakes a second", row: full, against: ghostunnel, metric: rate, want: 1.25},
		{work: "full handshakes: server CPU each", row: full, against: haproxy, metric: proxyCPU, atMost: true, want: 0.36},
		{work: "resumed handshakes a second", row: "handshake-resumed", against: haproxy, metric: rate, want: 2.1},
		{work: "bursts of full handshakes, closed in order: a second", row: burst, against: haproxy, metric: rate, want: 1.9},
		{work: "bursts of full handshakes, closed in order: server CPU each", row: burst, against: haproxy, metric: proxyCPU, atMost: true, want: 0.38},
		{work: "paired, bursts of full handshakes, closed in order: a second", row: burst, against: haproxy, metric: rate, want: 1.7, only: paired},
		{work: "paired, bursts of full handshakes, closed in order: server CPU each", row: burst, against: haproxy, metric: proxyCPU, atMost: true, want: 0.45, only: paired},
		{work: "memory per idle connection", row: "memory-3000", metric: perConn, atMost: true, want: 16, unit: " KiB", scale: 1 << 10},
		{work: "paired: memory per idle connection", row: "memory-3000", metric: perConn, atMost: true, want: 20, unit: " KiB", scale: 1 << 10, only: paired},
		{work: "memory per idle connection at 10,000", row: "memory-10000", otherRow: "memory-1000", metric: perConn, atMost: true, want: 1.05},
		{work: "paired: memory per idle connection at 10,000", row: "memory-10000", otherRow: "memory-1000", metric: perConn, atMost: true, want: 1.05, only: paired},
		{work: "slow readers of one other identity: p99, times that without", row: "slow-readers", metric: p99Ratio, atMost: true, want: 2},
		{work: "slow readers of other identities: p99, times that without", row: "slow-readers-distinct", metric: p99Ratio, atMost: true, want: 2},
		{work: "slow readers of the same identity: longest wait", row: "slow-readers-same", metric: longest, atMost: true, want: 1000, unit: " ms", scale: 1e3},
		{work: "one slow command a second: p99 of the others", row: "slow-command", against: paired, metric: p99, atMost: true, dragonfly: 2},
	}
	return append(append(all, poolGoals()...), pairedGoals()...)
}

// poolGoals are about connections that are few.
func poolGoals() (all []goal) {
	for _, connections := range []int{2, 4, 8} {
		row, work := fmt.Sprintf("get-64B-c%d-p1", connections), fmt.Sprintf("%d connections: ", connections)
		all = append(all,
			goal{work: work + "p50", row: row, against: paired, metric: p50, atMost: true, want: 1.0},
			goal{work: work + "throughput", row: row, against: paired, metric: rate, want: 1.0})
	}
	return all
}

// pairedGoals are those at which shared mode must keep up with paired, and the open loop.
func pairedGoals() (all []goal) {
	for _, kib := range []int{4, 16, 60} {
		all = append(all, goal{work: fmt.Sprintf("SET of %d KiB: proxy CPU per command", kib), row: fmt.Sprintf("set-%dKiB-c50-p1", kib),
			against: paired, metric: proxyCPU, atMost: true, want: 1.1})
	}
	for _, connections := range []int{50, 200, 800} {
		all = append(all, goal{work: fmt.Sprintf("100 us per command and connection, %d connections: throughput", connections),
			row: fmt.Sprintf("get-64B-c%d-p1", connections), against: paired, metric: rate, slow: 0.8})
	}
	for _, percent := range openLoads {
		work, row := fmt.Sprintf("open loop at %d %% of capacity: p99.9", percent), fmt.Sprintf("open-%d", percent)
		all = append(all,
			goal{work: work, row: row, against: haproxyName, metric: p999, atMost: true, want: 0.4},
			goal{work: work, row: row, against: paired, metric: p999, atMost: true, want: 1.0})
	}
	return all
}
