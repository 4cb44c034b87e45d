package config

import (
	"fmt"
	"strings"
)

// Fault is one thing wrong with the environment. No field holds a secret.
type Fault struct {
	Variable string // full name
	Value    string // as set; empty when it is unset or hidden
	Hidden   bool   // the value is not shown
	Accepted string // what would be right
	Cure     string // what to do, if more is known
	Origin   string // file and line that set it; empty: the environment
	File     string // path of the file that cannot be read, if that is the fault; for comparing, not for showing
}

func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.Variable)
	switch {
	case f.Hidden:
		b.WriteString(" " + hidden)
	case f.Value != "":
		fmt.Fprintf(&b, "=%q", f.Value)
	}
	if f.Origin != "" {
		b.WriteString(" (" + f.Origin + ")")
	}
	b.WriteString(": " + f.Accepted)
	if f.Cure != "" {
		b.WriteString("; " + f.Cure)
	}
	return b.String()
}

// Faults is the error of Load: everything wrong at once, one line each.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}
