package main

import (
	"fmt"
	"math"
	"strings"
)

// Outcomes of a verdict.
const (
	reached       = "reached"
	missed        = "missed"
	notMeasurable = "not measurable"
)

// verdict compares a figure with what the design wants.
type verdict struct {
	Work    string `json:"work"`
	Wanted  string `json:"wanted"`
	Outcome string `json:"outcome"`
	Detail  string `json:"detail"` // the figure with its spread, or why there is none
}

// goal is a figure to reach, of dragontls against a peer in the same row.
type goal struct {
	work    string
	row     string
	against string // "": the figure itself
	metric  metric
	atMost  bool // else at least
	want    float64
	unit    string
	scale   float64 // of the figure itself; 0: 1
	only    string  // the mode of dragontls that the goal is about; "": shared where there is one
}

// goals are those of section 8 of the design.
func goals() []goal {
	const c50, c500, c1, p16 = "get-64B-c50-p1", "get-64B-c500-p1", "get-64B-c1-p1", "get-64B-c50-p16"
	const haproxy, ghostunnel = "HAProxy", "ghostunnel"
	return []goal{
		{work: "50 connections: throughput", row: c50, against: haproxy, metric: rate, want: 1.3},
		{work: "50 connections: throughput", row: c50, against: ghostunnel, metric: rate, want: 1.2},
		{work: "50 connections: throughput", row: c50, against: ownTLSName, metric: rate, want: 1.0},
		{work: "500 connections: throughput", row: c500, against: haproxy, metric: rate, want: 1.3},
		{work: "500 connections: throughput", row: c500, against: ghostunnel, metric: rate, want: 1.3},
		{work: "500 connections: throughput", row: c500, against: ownTLSName, metric: rate, want: 1.0},
		{work: "50 connections: backend CPU per command", row: c50, against: ownTLSName, metric: backendCPU, atMost: true, want: 0.4},
		{work: "500 connections: backend CPU per command", row: c500, against: ownTLSName, metric: backendCPU, atMost: true, want: 0.25},
		{work: "50 connections: proxy CPU per command", row: c50, against: haproxy, metric: proxyCPU, atMost: true, want: 0.75},
		{work: "pipeline of 16, 50 connections: throughput", row: p16, against: haproxy, metric: rate, want: 1.1},
		{work: "1 connection: p50", row: c1, against: ghostunnel, metric: p50, atMost: true, want: 1.0},
		{work: "1 connection: p50", row: c1, against: haproxy, metric: p50, atMost: true, want: 1.2},
		{work: "full handshakes a second", row: "handshake-full", against: haproxy, metric: rate, want: 1.6},
		{work: "full handshakes a second", row: "handshake-full", against: ghostunnel, metric: rate, want: 1.15},
		{work: "full handshakes: server CPU each", row: "handshake-full", against: haproxy, metric: proxyCPU, atMost: true, want: 0.5},
		{work: "resumed handshakes a second", row: "handshake-resumed", against: haproxy, metric: rate, want: 1.5},
		{work: "memory per idle connection", row: "memory-3000", metric: perConn, atMost: true, want: 24, unit: " KiB", scale: 1 << 10},
		{work: "paired: memory per idle connection", row: "memory-3000", metric: perConn, atMost: true, want: 32, unit: " KiB", scale: 1 << 10, only: "paired"},
		{work: "paired, 50 connections: proxy CPU per command", row: c50, against: haproxy, metric: proxyCPU, atMost: true, want: 1.1, only: "paired"},
	}
}

// judge gives each goal its verdict.
func judge(rep *report) (all []verdict) {
	for _, g := range goals() {
		all = append(all, g.judge(rep))
	}
	return append(all, judgeStorm(rep), verdict{
		Work: "allocations per command on the hot path", Wanted: "0", Outcome: notMeasurable,
		Detail: "not visible from outside: tests and benchmarks of package proxy hold it",
	})
}

// subject is the mode that a goal is about: lanes where there are any, else paired, which the verdict then says.
func (g goal) subject(rep *report) string {
	if g.only == "" && rep.has("dragontls shared") {
		return "dragontls shared"
	}
	return "dragontls paired"
}

func (g goal) judge(rep *report) verdict {
	v := verdict{Work: g.work, Wanted: g.wanted(), Outcome: notMeasurable}
	if g.against != "" {
		v.Work += " against " + g.against
	}
	subject := g.subject(rep)
	ours, why := rep.measured(g.row, subject)
	if ours == nil {
		v.Detail = why
		return v
	}
	figure := ours.of(g.metric)
	if g.against != "" {
		theirs, why := rep.measured(g.row, g.against)
		if theirs == nil {
			v.Detail = why
			return v
		}
		figure = ratio(ours, theirs, g.metric)
		v.noteErrors(theirs)
	}
	if g.scale != 0 {
		figure = spread{figure.Median / g.scale, figure.Min / g.scale, figure.Max / g.scale}
	}
	if figure.Median == 0 || math.IsNaN(figure.Median) {
		v.Detail = "too little was measured to compare" + v.Detail
		return v
	}
	v.noteErrors(ours)
	v.Outcome = reached
	text := fmt.Sprintf("%s: %s", subject, showSpread(figure, g.unit))
	if off := g.off(figure.Median); off > 0 {
		v.Outcome = missed
		text += fmt.Sprintf(", missed by %.0f %%", math.Max(1, 100*off))
	}
	if (g.off(figure.Min) > 0) != (g.off(figure.Max) > 0) {
		text += " (the rounds disagree)"
	}
	v.Detail = text + v.Detail
	return v
}

func (v *verdict) noteErrors(r *result) {
	if e := r.errors(); len(e) > 0 {
		v.Detail += fmt.Sprintf("; %s had errors: %s", r.Peer, showErrors(e))
	}
}

// off is by which part a figure misses the goal. Zero or below: it does not.
func (g goal) off(figure float64) float64 {
	if g.atMost {
		return figure/g.want - 1
	}
	return 1 - figure/g.want
}

func (g goal) wanted() string {
	sign := ">="
	if g.atMost {
		sign = "<="
	}
	if g.unit != "" {
		return fmt.Sprintf("%s %g%s", sign, g.want, g.unit)
	}
	return fmt.Sprintf("%s %.2f", sign, g.want)
}

const (
	stormRotations  = 1000
	stormHandshakes = 200
	stormShare      = 0.95
)

func judgeStorm(rep *report) verdict {
	v := verdict{Work: "1,000 reloads under load and 200 new handshakes a second", Outcome: notMeasurable,
		Wanted: "0 errors, throughput >= 0.95 of none"}
	subject := goal{}.subject(rep)
	r, why := rep.measured("storm", subject)
	if r == nil {
		v.Detail = why
		return v
	}
	rotations, leaves := 0, 0
	for _, s := range r.Samples {
		rotations += s.Rotations
		leaves += s.Leaves
	}
	share := r.of(stormRatio)
	greeted := r.of(func(s sample) float64 { return s.Handshakes })
	var faults []string
	if e := r.errors(); len(e) > 0 {
		faults = append(faults, "errors: "+showErrors(e))
	}
	if share.Median < stormShare {
		faults = append(faults, "throughput fell")
	}
	if leaves < 2 {
		faults = append(faults, "no new certificate was seen")
	}
	v.Outcome = reached
	if len(faults) > 0 {
		v.Outcome = missed
	}
	if greeted.Median < stormHandshakes {
		faults = append(faults, "the machine did not make 200 handshakes a second")
		if v.Outcome == reached {
			v.Outcome = notMeasurable
		}
	}
	if rotations < stormRotations {
		faults = append(faults, "a shorter storm than wanted")
		if v.Outcome == reached {
			v.Outcome = notMeasurable
		}
	}
	v.Detail = fmt.Sprintf("%s: %d rotations, %d certificates seen, %.0f handshakes/s, throughput %s of none",
		subject, rotations, leaves, greeted.Median, showSpread(share, ""))
	if len(faults) > 0 {
		v.Detail += "; " + strings.Join(faults, ", ")
	}
	return v
}
