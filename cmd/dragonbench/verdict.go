package main

import (
	"fmt"
	"math"
	"slices"
)

// Outcomes of a verdict.
const (
	reached       = "reached"
	missed        = "missed"
	notMeasurable = "not measurable"
)

// verdict compares a figure with what the design wants.
type verdict struct {
	Backend string `json:"backend"` // whose figure it is: Redis, Dragonfly, the model that stands for it, slow, or all
	Work    string `json:"work"`
	Wanted  string `json:"wanted"`
	Outcome string `json:"outcome"`
	Detail  string `json:"detail"` // the figure with its spread, or why there is none
}

// judge gives each goal its verdict, backend by backend.
func judge(rep *report) (all []verdict) {
	for _, b := range rep.Backends {
		for _, g := range goals() {
			if g.want = g.wantedOn(b.Figures); g.want > 0 {
				all = append(all, g.judge(b))
			}
		}
		if b.Figures == figuresRedis || b.Figures == figuresDragonfly || b.Figures == figuresModel {
			all = append(all, judgeStorm(b))
		}
	}
	return append(all, unjudged(rep)...)
}

// unjudged are the figures that this run says nothing about, and those that no run can measure.
func unjudged(rep *report) (all []verdict) {
	has := func(figures ...string) bool {
		return slices.ContainsFunc(rep.Backends, func(b *backendReport) bool { return slices.Contains(figures, b.Figures) })
	}
	add := func(backend, work, wanted, detail string) {
		all = append(all, verdict{Backend: backend, Work: work, Wanted: wanted, Outcome: notMeasurable, Detail: detail})
	}
	const absent = "not part of this run "
	if !has(figuresRedis) {
		add(figuresRedis, "all its figures", "-", absent+"(--backend redis-server)")
	}
	if !has(figuresDragonfly, figuresModel) {
		add(figuresDragonfly, "all its figures", "-", absent+"(--backend dragonfly with DRAGONFLY_BIN, or model in its place)")
	}
	if !has(figuresSlow) {
		add(figuresSlow, "100 us per command and connection: throughput against "+paired, ">= 0.80", absent+"(--backend slow)")
	}
	add("all", "a hostile handshake that is refused: CPU against an honest one", "<= 2",
		"no peer is asked for it: BenchmarkHostileHandshake of package certs measures it")
	add("all", "allocations per command on the hot path", "0",
		"not visible from outside: tests and benchmarks of package proxy hold it")
	return all
}

// subject is the mode that a goal is about: shared where there is one, else paired, which the verdict then says.
func (g goal) subject(rep *backendReport) string {
	switch {
	case g.only != "":
		return g.only
	case rep.has(shared) || g.against == paired || g.against == oldShared:
		return shared
	}
	return paired
}

func (g goal) judge(rep *backendReport) verdict {
	v := verdict{Backend: rep.Figures, Work: g.work, Wanted: g.wanted(), Outcome: notMeasurable}
	subject := g.subject(rep)
	base, baseRow := subject, g.row // what the figure is divided by
	switch {
	case g.against != "":
		v.Work += " against " + g.against
		base = g.against
	case g.otherRow != "":
		v.Work += " against " + g.otherRow
		baseRow = g.otherRow
	}
	ours, why := rep.measured(g.row, subject)
	if ours == nil {
		v.Detail = why
		return v
	}
	figure := ours.of(g.metric)
	if base != subject || baseRow != g.row {
		theirs, why := rep.measured(baseRow, base)
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
