package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// writeText prints the table, the verdicts and the remarks on them.
func (rep *report) writeText(w io.Writer) {
	fmt.Fprintf(w, "%s\nload: %s; %d rounds of %g s; took %.0f s\n", rep.Machine.describe(), rep.Load, rep.Rounds, rep.WindowSeconds,
		rep.TookSeconds)
	for _, b := range rep.Backends {
		b.writeText(w)
	}
	fmt.Fprintln(w, "\nCPU is per command or connection. Memory is the highest Pss of the proxy, or of the backend where there is no proxy.")
	fmt.Fprintln(w, "\nFigures to reach:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range rep.Verdicts {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", v.Outcome, v.Backend, v.Work, v.Wanted, v.Detail)
	}
	t.Flush()
	for _, check := range rep.Checks {
		fmt.Fprintf(w, "\n%s\n", check)
	}
	for _, warning := range rep.Warnings {
		fmt.Fprintf(w, "\nWARNING: %s\n", warning)
	}
}

func (rep *backendReport) writeText(w io.Writer) {
	fmt.Fprintf(w, "\nbackend: %s\n", rep.Name)
	for _, p := range rep.Peers {
		fmt.Fprintf(w, "  %s %s\n", p.Name, p.Version)
	}
	writeMissing(w, rep.Missing)
	fmt.Fprintln(w)
	rep.writeTable(w)
}

// writeTable puts a title above the lines of each row. The titles are put in after the alignment, which they would break.
func (rep *backendReport) writeTable(w io.Writer) {
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  PEER\tMEDIAN\tMIN .. MAX\tP50\tP99\tPROXY CPU\tBACKEND CPU\tCLIENT CPU\tMEMORY\tNOTE")
	titles := map[int]string{}
	count := 1 // the header
	for n := range rep.Rows {
		r := &rep.Rows[n]
		titles[count] = r.Title
		for _, l := range rep.lines(r) {
			count++
			fmt.Fprintf(t, "  %s\n", strings.Join([]string{l.Peer, l.Figure, l.Range, l.P50, l.P99, l.ProxyCPU, l.BackendCPU, l.LoadCPU,
				l.Memory, l.Note}, "\t"))
		}
	}
	t.Flush()
	count = 0
	for line := range strings.Lines(table.String()) {
		if title, ok := titles[count]; ok {
			fmt.Fprintln(w, title)
		}
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
		count++
	}
}

func writeMissing(w io.Writer, all []missing) {
	for _, m := range all {
		fmt.Fprintf(w, "  %s: not measured: %s\n", m.Name, m.Why)
		if m.Cure != "" {
			fmt.Fprintf(w, "    %s\n", m.Cure)
		}
	}
}

func (m machine) describe() string {
	return fmt.Sprintf("%s, %d CPUs, %.0f GiB, Linux %s, %s, %s", m.CPU, m.CPUs, float64(m.Memory)/(1<<30), m.Kernel, m.Go,
		m.Date.Format("2006-01-02 15:04 UTC"))
}
