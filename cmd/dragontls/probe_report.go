package main

import (
	"fmt"
	"io"
	"strings"
)

// Results of a check, as printed.
const (
	probeOK   = "ok"
	probeFail = "FAIL"
	probeInfo = "info"
)

// probeReport is what probe found, in the order it looked; its fields are those of --json.
type probeReport struct {
	Target     string             `json:"target"`
	Address    string             `json:"address,omitempty"`
	ServerName string             `json:"server_name"`
	Findings   int                `json:"findings"`
	Checks     []probeCheck       `json:"checks"`
	Versions   []probeVersion     `json:"versions,omitempty"`
	Chain      []probeCertificate `json:"chain,omitempty"`
}

type probeCheck struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, FAIL or info
	Text   string `json:"text"`
	Cure   string `json:"cure,omitempty"` // of a FAIL
}

func (r *probeReport) ok(check, text string) {
	r.Checks = append(r.Checks, probeCheck{Check: check, Result: probeOK, Text: text})
}

func (r *probeReport) info(check, text string) {
	r.Checks = append(r.Checks, probeCheck{Check: check, Result: probeInfo, Text: text})
}

func (r *probeReport) fail(check, text, cure string) {
	r.Checks = append(r.Checks, probeCheck{Check: check, Result: probeFail, Text: text, Cure: cure})
}

func (r *probeReport) findings() (n int) {
	for _, c := range r.Checks {
		if c.Result == probeFail {
			n++
		}
	}
	return n
}

func (r *probeReport) write(w io.Writer) error {
	wide := 0
	for _, c := range r.Checks {
		wide = max(wide, len(c.Check))
	}
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-*s  %s\n", c.Result, wide, c.Check, printable(c.Text))
		if c.Cure != "" {
			fmt.Fprintf(&b, "%*s  -> %s\n", 6+wide, "", printable(c.Cure))
		}
	}
	switch n := r.findings(); n {
	case 0:
		b.WriteString("\nnothing is wrong\n")
	case 1:
		b.WriteString("\n1 finding\n")
	default:
		fmt.Fprintf(&b, "\n%d findings\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *probeReport) writeJSON(w io.Writer) error {
	r.Findings = r.findings()
	return writeJSON(w, r)
}
