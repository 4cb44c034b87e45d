package certs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rs/zerolog"
)

// The values of Fault.Reason: few and fixed, for they label metrics.
const (
	ReasonUnreadable  = "unreadable"
	ReasonParse       = "parse"
	ReasonMismatch    = "mismatch"
	ReasonExpired     = "expired"
	ReasonNotYetValid = "not_yet_valid"
	ReasonNoCA        = "no_ca"
	ReasonEKU         = "eku"
	ReasonChain       = "chain"
	ReasonCRL         = "crl"
	ReasonAllow       = "allow"
	ReasonUsers       = "users"
	ReasonTicketKeys  = "ticket_keys"
	ReasonOCSP        = "ocsp"
)

// Fault is one thing that is wrong with one file.
type Fault struct {
	File   string
	Reason string // one of the Reason constants
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

func newFault(file, reason, cure, format string, args ...any) *Fault {
	return &Fault{File: file, Reason: reason, Err: fmt.Errorf(format, args...), Cure: cure}
}

// faults collects what is wrong, so that all of it is reported at once.
type faults []error

// add appends what err holds, flat, so that the first cause stays the first.
func (f *faults) add(err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		*f = append(*f, many.Unwrap()...)
		return
	}
	*f = append(*f, err)
}

func (f faults) join() error { return errors.Join(f...) }

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
