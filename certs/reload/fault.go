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

// list returns the errors that err joins, or err alone.
func list(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return many.Unwrap()
	}
	return []error{err}
}

// textOf returns the text of a fault without its cure.
func textOf(err error) string {
	if f, ok := errors.AsType[*Fault](err); ok {
		err = f.Err
	}
	return err.Error()
}

// causes returns the texts of the faults in err without their cures. A cure may hold the time that
// is left until some moment: it would make the same fault look new at each reload.
func causes(err error) string {
	var b strings.Builder
	for _, err := range list(err) {
		b.WriteString(textOf(err) + "\n")
	}
	return b.String()
}

// reasonOf returns the reason of the first fault in err.
func reasonOf(err error) string {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Reason
	}
	return ReasonParse
}

// maxLogged bounds the texts of further faults in one line of the log, which has room for 16 KiB.
const maxLogged = 8 << 10

// faultFields adds to a line of the log what is held back: the first fault with its cure, and the texts of the others.
func faultFields(e *zerolog.Event, h *Held) *zerolog.Event {
	f := h.Fault()
	faults := list(h.Err)
	e = e.Str("source", h.Name).Str("reason", f.Reason).Str("file", f.File).Err(f.Err).Int("faults", len(faults)).Time("since", h.Since)
	if f.Cure != "" {
		e = e.Str("cure", strings.ReplaceAll(f.Cure, "\n", " "))
	}
	var more []string
	size := 0
	for _, err := range faults[1:] {
		text := textOf(err)
		if size += len(text); size > maxLogged {
			break
		}
		more = append(more, text)
	}
	if len(more) > 0 {
		e = e.Strs("more", more)
	}
	return e
}
