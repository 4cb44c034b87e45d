package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"dragontls/proxy/admin/statuspage"
)

// maxShownEvents of the latest ones are enough for a screen; /status.json has more.
const maxShownEvents = 10

// statusText is a status for a terminal. Columns are aligned within a section.
type statusText struct{ *tabwriter.Writer }

// writeStatus shows st to people. What clients, certificates and files hold is made printable.
func writeStatus(w io.Writer, st *statuspage.Status) error {
	var b bytes.Buffer
	t := statusText{tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)}
	t.health(st)
	t.traffic(st)
	t.limits(st.Limits)
	t.trusted(st)
	t.backend(&st.Backend)
	t.events(st.Events, st.Time)
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// line writes cells of one row.
func (t statusText) line(cells ...string) { fmt.Fprintln(t, "  "+strings.Join(cells, "\t")) }

// section begins a part with columns of its own.
func (t statusText) section(title string) {
	t.Flush()
	fmt.Fprintf(t, "\n%s\n", title)
}

func (t statusText) health(st *statuspage.Status) {
	state := "ready"
	if !st.Ready {
		state = "NOT READY: " + cell(st.Reason)
	}
	fmt.Fprintf(t, "dragontls %s, up %s: %s\n", cell(st.Version), roughly(time.Duration(st.UptimeSeconds)*time.Second), state)
	for _, p := range st.Problems {
		fmt.Fprintf(t, "%s: %s\n", cell(p.Severity), cell(p.What))
		if p.Cure != "" {
			fmt.Fprintf(t, "  %s\n", cell(p.Cure))
		}
	}
	if len(st.Problems) == 0 {
		fmt.Fprintln(t, "nothing wants attention")
	}
}

func (t statusText) traffic(st *statuspage.Status) {
	t.section("Traffic")
	t.line("sessions", fmt.Sprint(st.Connections.Open))
	t.line("handshakes under way", fmt.Sprint(st.Connections.Handshaking))
	if r := st.Rates; r != nil {
		t.line("commands a second", fmt.Sprintf("%.1f", r.Commands))
		t.line("handshakes a second", fmt.Sprintf("%.1f", r.Handshakes))
		t.line("refused a second", fmt.Sprintf("%.1f", r.Refused))
		t.line("KiB a second", fmt.Sprintf("%.1f in, %.1f out", r.BytesIn/1024, r.BytesOut/1024))
	}
	for _, l := range st.Latency {
		t.line("latency ("+cell(l.Path)+")", fmt.Sprintf("p50 %s, p99 %s, p99.9 %s", inUnits(l.P50), inUnits(l.P99), inUnits(l.P999)))
	}
}

// inUnits is a duration in seconds for people.
func inUnits(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func (t statusText) limits(all []statuspage.Limit) {
	t.section("Limits")
	for _, l := range all {
		if l.Value == nil && l.Reached == 0 {
			continue
		}
		used, most, share := "?", "none", ""
		if l.Used != nil {
			used = fmt.Sprint(*l.Used)
		}
		if l.Value != nil {
			most = fmt.Sprint(*l.Value)
		}
		if s := l.Share(); s >= 0 {
			share = fmt.Sprintf("%.0f %%", 100*s)
		}
		reached := ""
		if l.Reached > 0 {
			reached = fmt.Sprintf("reached %d times", l.Reached)
		}
		t.line(cell(l.Name), used+" of "+most, share, reached)
	}
}

func (t statusText) trusted(st *statuspage.Status) {
	t.section("Certificates and CRLs")
	for _, c := range st.Certificates {
		t.line(cell(c.Role), daysLeft(c.DaysLeft), cell(c.Subject), cell(c.File))
	}
	for _, l := range st.CRLs {
		left := daysLeft(l.DaysLeft)
		if l.NextUpdate.IsZero() {
			left = "no end"
		}
		if !l.Current {
			left += " (another one holds longer)"
		}
		t.line("crl", left, cell(l.Issuer), cell(l.File))
	}
}

func daysLeft(days float64) string {
	if days < 0 {
		return fmt.Sprintf("ENDED %.1f days ago", -days)
	}
	return fmt.Sprintf("%.1f days left", days)
}

func (t statusText) backend(b *statuspage.Backend) {
	t.section("Backend")
	state := "DOWN"
	if b.Up {
		state = "up"
	}
	if b.Since != nil {
		state += " since " + b.Since.UTC().Format(time.RFC3339)
	}
	t.line(cell(b.URL), state)
	if b.PingSeconds > 0 {
		t.line("round trip", inUnits(b.PingSeconds))
	}
	t.line("connections", fmt.Sprintf("%d, of them %d lanes", b.Connections, b.Lanes))
}

func (t statusText) events(all []statuspage.Event, now time.Time) {
	if len(all) == 0 {
		return
	}
	t.section("Lately")
	for _, e := range all[:min(len(all), maxShownEvents)] {
		what := strings.Join(strings.Fields(oneLine(strings.Join([]string{e.Client, e.Address, e.File, e.Error}, " "))), " ")
		t.line(roughly(now.Sub(e.Last))+" ago", cell(strings.ReplaceAll(e.Kind, "_", " ")), fmt.Sprintf("%s (%d)", cell(e.Reason), e.Count), cell(what))
		if e.Cure != "" {
			t.line("", "", "cure:", cell(e.Cure))
		}
	}
}
