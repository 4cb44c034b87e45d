package identity

import (
	"fmt"
	"strings"
)

// maxFaults bounds a report. The other faults are reported once some of these are mended.
const maxFaults = 50

// Fault is one thing that is wrong with a users file.
type Fault struct {
	Line int // 0: the file as a whole
	Text string
	Cure string // what to do or what is accepted; empty where there is no more to say
}

// Faults is the error of ParseUsers: everything that is wrong at once.
type Faults struct {
	File string
	List []Fault
	more int
}

// Error has a line for each fault, and one for its cure.
func (f *Faults) Error() string {
	var b strings.Builder
	for i, fault := range f.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.File)
		if fault.Line > 0 {
			fmt.Fprintf(&b, ":%d", fault.Line)
		}
		b.WriteString(": " + fault.Text)
		if fault.Cure != "" {
			b.WriteString("\n  " + strings.ReplaceAll(fault.Cure, "\n", "\n  "))
		}
	}
	if f.more > 0 {
		fmt.Fprintf(&b, "\n%s: and %d faults more", f.File, f.more)
	}
	return b.String()
}

func (f *Faults) count() int { return len(f.List) + f.more }

func (f *Faults) add(line int, cure, format string, args ...any) {
	if len(f.List) == maxFaults {
		f.more++
		return
	}
	f.List = append(f.List, Fault{Line: line, Text: fmt.Sprintf(format, args...), Cure: cure})
}
