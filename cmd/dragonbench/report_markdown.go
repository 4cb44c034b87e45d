package main

import (
	"fmt"
	"io"
	"strings"
)

// writeMarkdown prints the section of a README.
func (rep *report) writeMarkdown(w io.Writer) {
	fmt.Fprintf(w, "## Figures\n\n`%s` on %s. Backend: %s. %d interleaved rounds of %g s, medians with lowest and highest round; "+
		"client, proxy and backend share the machine; TLS 1.3, mutual, ECDSA P-256, the same certificates for all.\n\n",
		rep.Command, rep.Machine.describe(), rep.Backend, rep.Rounds, rep.WindowSeconds)
	for _, warning := range rep.Warnings {
		fmt.Fprintf(w, "**Warning:** %s\n\n", warning)
	}
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
	fmt.Fprintln(w, "\n| figure to reach | wanted | outcome | |\n|---|---|---|---|")
	for _, v := range rep.Verdicts {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", v.Work, v.Wanted, v.Outcome, v.Detail)
	}
	fmt.Fprintln(w)
	var versions []string
	for _, p := range rep.Peers {
		versions = append(versions, p.Name+" "+p.Version)
	}
	fmt.Fprintf(w, "Versions: %s.\n", strings.Join(versions, ", "))
	for _, m := range rep.Missing {
		fmt.Fprintf(w, "Not measured: %s (%s).\n", m.Name, m.Why)
	}
}
