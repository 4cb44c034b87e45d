package reload

import (
	"errors"
	"strings"

	"github.com/rs/zerolog"
)

// Reasons of faults that hold for any file. Callers have more of their own: few and fixed, for
// they label metrics.
const (
	ReasonUnreadable = "unreadable" // it cannot be read
	ReasonParse      = "parse"      // it makes no sense; also counted for an error that is no Fault
)

// Fault is one thing that is wrong with one file.
type Fault struct {
	File   string
	Reason string // a label, such as ReasonUnreadable
	Err    error  // names the file
	Cure   string // what to do about it; empty where there is no more to say
}

// Error is the fault and, on its own line, the cure.
func (f *Fault) Error() string {
	if f.Cure == "" {
		return f.Err.Error()
	}
	return f.Err.Error() + "\n" + f.Cure
}

func (f *Fault) Unwrap() error { return f.Err }

// causes is the text of err without cures, which may count down to a moment.
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

// reasonOf is the label of the first fault in err.
func reasonOf(err error) string {
	var f *Fault
	if errors.As(err, &f) {
		return f.Reason
	}
	return ReasonParse
}

// faultFields adds the first fault of err to a log line, and how many there are.
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
