package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// report is a finished run: what every format shows, and what --json writes.
type report struct {
	Machine       machine          `json:"machine"`
	Command       string           `json:"command"`
	Plan          string           `json:"plan"`
	Load          string           `json:"load"`
	Rounds        int              `json:"rounds"`
	WindowSeconds float64          `json:"window_seconds"`
	TookSeconds   float64          `json:"took_seconds"`
	Warnings      []string         `json:"warnings,omitempty"`
	Checks        []string         `json:"checks,omitempty"` // of the generator
	Backends      []*backendReport `json:"backends"`
	Verdicts      []verdict        `json:"verdicts"`
}

// backendReport is what was measured in front of one backend.
type backendReport struct {
	Name    string       `json:"name"`              // and version
	Figures string       `json:"figures,omitempty"` // which figures to reach it is judged by
	Peers   []peerReport `json:"peers"`
	Missing []missing    `json:"missing,omitempty"`
	Rows    []row        `json:"rows"`
	Results []*result    `json:"results"`
}

// backends names them all.
func (rep *report) backends() string {
	var all []string
	for _, b := range rep.Backends {
		all = append(all, b.Name)
	}
	return strings.Join(all, ", ")
}

// peerReport is a peer that was measured.
type peerReport struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path"`
	Reloads string `json:"reloads,omitempty"`
}

func (rep *backendReport) has(peer string) bool {
	return slices.ContainsFunc(rep.Peers, func(p peerReport) bool { return p.Name == peer })
}

// measured returns a result with samples, or why there is none.
func (rep *backendReport) measured(row, peer string) (*result, string) {
	if r := find(rep.Results, row, peer); r != nil {
		if len(r.Samples) > 0 {
			return r, ""
		}
		return nil, peer + ": " + firstLineOf(r.Unmeasured)
	}
	for _, m := range rep.Missing {
		if m.Name == peer {
			return nil, peer + ": " + m.Why
		}
	}
	if !rep.has(peer) {
		if strings.HasPrefix(peer, oldPrefix) {
			return nil, peer + " is not part of this run (" + oldVariable + " names its program)"
		}
		return nil, peer + " is not part of this run"
	}
	return nil, fmt.Sprintf("not part of this run (--only %s)", row)
}

func firstLineOf(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// of returns the results of a row, in the order of the peers.
func (rep *backendReport) of(row string) (all []*result) {
	for _, r := range rep.Results {
		if r.Row == row {
			all = append(all, r)
		}
	}
	return all
}

// figure is what a row is about, and how it is shown.
type figure struct {
	metric metric
	name   string
	show   func(float64) string
	fewer  bool // is better
}

func (r *row) figure() figure {
	switch r.work.Kind {
	case idle:
		return figure{perConn, "KiB per connection", func(v float64) string { return fmt.Sprintf("%.1f KiB", v/1024) }, true}
	case outage:
		return figure{firstReply, "ms to the first good reply", func(v float64) string { return fmt.Sprintf("%.0f ms", v) }, true}
	case storm:
		return figure{stormRatio, "throughput, of that without rotations", func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }, false}
	case handshakes, bursts, churn:
		return figure{rate, "connections a second", showRate, false}
	case openLoop:
		return figure{p999, "p99.9", showMicros, true}
	case slowOne:
		return figure{p99, "p99 of the other commands", showMicros, true}
	case laggards:
		return figure{p99, "p99 of those that keep up", showMicros, true}
	}
	return figure{rate, "commands a second", showRate, false}
}

func showRate(v float64) string { return thousands(v) + "/s" }

// thousands writes 12345.6 as 12,346.
func thousands(v float64) string {
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for n := len(digits) - 3; n > 0; n -= 3 {
		digits = digits[:n] + "," + digits[n:]
	}
	return digits
}

func showMicros(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v < 1000:
		return fmt.Sprintf("%.0f us", v)
	case v < 1e6:
		return fmt.Sprintf("%.2f ms", v/1e3)
	}
	return fmt.Sprintf("%.2f s", v/1e6)
}

func showCPU(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f us", v)
}

func showBytes(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f MiB", v/(1<<20))
}

func showSpread(s spread, unit string) string {
	return fmt.Sprintf("%.2f%s (%.2f..%.2f)", s.Median, unit, s.Min, s.Max)
}

func showErrors(errors map[string]int) string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(errors)) {
		all = append(all, fmt.Sprintf("%d x %s", errors[kind], kind))
	}
	return strings.Join(all, ", ")
}

// line is a result as every table shows it.
type line struct {
	Peer, Figure, Range, P50, P99, ProxyCPU, BackendCPU, LoadCPU, Memory, Note string
	Own                                                                        bool // dragontls
}

func (rep *backendReport) lines(r *row) (all []line) {
	f := r.figure()
	for _, res := range rep.of(r.ID) {
		l := line{Peer: res.Peer, Own: isOwn(res.Peer), Figure: "-", Range: "-", P50: "-", P99: "-",
			ProxyCPU: "-", BackendCPU: "-", LoadCPU: "-", Memory: "-"}
		if len(res.Samples) > 0 {
			s := res.of(f.metric)
			l.Figure = f.show(s.Median)
			l.Range = f.show(s.Min) + " .. " + f.show(s.Max)
			l.P50, l.P99 = showMicros(res.of(p50).Median), showMicros(res.of(p99).Median)
			l.ProxyCPU, l.BackendCPU = showCPU(res.of(proxyCPU).Median), showCPU(res.of(backendCPU).Median)
			l.LoadCPU = showCPU(res.of(loadCPU).Median)
			l.Memory = showBytes(res.of(peakPss).Max)
			if res.of(peakPss).Max == 0 {
				l.Memory = showBytes(res.of(backendPss).Max)
			}
		}
		l.Note = res.note(r)
		all = append(all, l)
	}
	return all
}

// note says what the figures do not.
func (r *result) note(in *row) string {
	var notes []string
	if e := r.errors(); len(e) > 0 {
		notes = append(notes, "ERRORS: "+showErrors(e))
	}
	if r.Unmeasured != "" {
		notes = append(notes, firstLineOf(r.Unmeasured))
	}
	rotations, leaves, unanswered := 0, 0, 0
	for _, s := range r.Samples {
		rotations, leaves, unanswered = rotations+s.Rotations, leaves+s.Leaves, unanswered+s.Unanswered
	}
	if in.work.Kind == storm && len(r.Samples) > 0 {
		notes = append(notes, fmt.Sprintf("%d rotations, %d certificates seen, %.0f handshakes/s", rotations, leaves,
			r.of(func(s sample) float64 { return s.Handshakes }).Median))
	}
	if in.work.Kind == laggards && len(r.Samples) > 0 {
		closed := r.of(func(s sample) float64 { return float64(s.Closed) })
		notes = append(notes, fmt.Sprintf("p99 without them %s, longest wait %s, peak RSS %s, %.0f of them closed",
			showMicros(r.of(calmP99).Median), showMicros(r.of(longest).Max), showBytes(r.of(peakRSS).Max), closed.Median))
	}
	if unanswered > 0 {
		notes = append(notes, fmt.Sprintf("%d without an answer at the end", unanswered))
	}
	return strings.Join(notes, "; ")
}
