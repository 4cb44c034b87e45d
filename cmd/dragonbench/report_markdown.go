package main

import (
	"fmt"
	"io"
	"strings"
)

// writeMarkdown prints the section "Figures" of cmd/dragonbench/README.md.
func (rep *report) writeMarkdown(w io.Writer) {
	fmt.Fprintf(w, "## Figures\n\n`%s` on %s. Backend: %s. %d interleaved rounds of %g s, medians with lowest and highest round; "+
		"client, proxy and backend share the machine; TLS 1.3, mutual, ECDSA P-256, the same certificates for all.\n\n",
		rep.Command, rep.Machine.describe(), rep.backends(), rep.Rounds, rep.WindowSeconds)
	for _, warning := range rep.Warnings {
		fmt.Fprintf(w, "**Warning:** %s\n\n", warning)
	}
	for _, b := range rep.Backends {
		if len(rep.Backends) > 1 {
			fmt.Fprintf(w, "In front of %s:\n\n", b.Name)
		}
		b.writeMarkdown(w)
	}
	fmt.Fprintln(w, "| figure to reach | backend | wanted | outcome | |\n|---|---|---|---|---|")
	unmeasured := 0
	for _, v := range rep.Verdicts {
		if v.Outcome == notMeasurable {
			unmeasured++
			continue
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", v.Work, v.Backend, v.Wanted, v.Outcome, v.Detail)
	}
	fmt.Fprintln(w)
	if unmeasured > 0 {
		fmt.Fprintf(w, "%d other figures were not measured in this run; without `--markdown`, dragonbench lists them and says why.\n\n", unmeasured)
	}
	for _, b := range rep.Backends {
		b.writeVersions(w)
	}
}

func (rep *backendReport) writeMarkdown(w io.Writer) {
	fmt.Fprintln(w, "| work | peer | median | min .. max | p50 | p99 | CPU proxy | CPU backend | memory | |")
	fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|--:|--:|---|")
	for n := range rep.Rows {
		title := rep.Rows[n].Title
		for _, l := range rep.lines(&rep.Rows[n]) {
			fmt.Fprintf(w, "| %s |\n", strings.Join([]string{title, l.Peer, l.Figure, l.Range, l.P50, l.P99, l.ProxyCPU, l.BackendCPU,
				l.Memory, l.Note}, " | "))
			title = ""
		}
	}
	fmt.Fprintln(w)
}

func (rep *backendReport) writeVersions(w io.Writer) {
	var versions []string
	for _, p := range rep.Peers {
		versions = append(versions, p.Name+" "+p.Version)
	}
	fmt.Fprintf(w, "Versions in front of %s: %s.\n", rep.Name, strings.Join(versions, ", "))
	for _, m := range rep.Missing {
		fmt.Fprintf(w, "Not measured: %s (%s).\n", m.Name, m.Why)
	}
}
