package reload

import (
	"errors"
	"strings"

	"github.com/rs/zerolog"
)

// The reasons of faults that any file can have. The owner of the files has more of its own.
// They are few and fixed, since they label metrics.
const (
	ReasonUnreadable = "unreadable" // the file cannot be read
	ReasonParse      = "parse"      // what it holds cannot be understood; an error that is no Fault counts as one, too
)

// Fault is one thing that is wrong with one file.
type Fault struct {
	File   string
	Reason string // a label, such as ReasonUnreadable
	Err    error  // names the file
	Cure   string // what to do about it; empty where there is no more to say
}

// Error returns the text of the fault and, on its own line, the cure.
func (f *Fault) Error() string {
	if f.Cure == "" {
		return f.Err.Error()
	}
	return f.Err.Error() + "\n" + f.Cure
}

func (f *Fault) Unwrap() error { return f.Err }

// causes returns the texts of the faults in err without their cures. A cure may hold the time that
// is left until some moment: it would make the same fault look new at each reload.
func causes(err error) string {
	list := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		list = many.Unwrap()
	}
	var b strings.Builder
	for _, err := range list {
		var f *Fault
		if errors.As(err, &f) {
			err = f.Err
		}
		b.WriteString(err.Error() + "\n")
	}
	return b.String()
}

// reasonOf returns the reason of the first fault in err.
func reasonOf(err error) string {
	var f *Fault
	if errors.As(err, &f) {
		return f.Reason
	}
	return ReasonParse
}

// faultFields adds to a log line the first fault in err, and how many there are.
func faultFields(e *zerolog.Event, err error) *zerolog.Event {
	n := 1
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		n = len(many.Unwrap())
	}
	var f *Fault
	if !errors.As(err, &f) {
		return e.Err(err)
	}
	e = e.Str("reason", f.Reason).Str("file", f.File).Err(f.Err).Int("faults", n)
	if f.Cure != "" {
		e = e.Str("cure", strings.ReplaceAll(f.Cure, "\n", " "))
	}
	return e
}
