package certs

import (
	"errors"
	"fmt"

	"dragontls/certs/reload"
)

// Fault is one thing that is wrong with one file.
type Fault = reload.Fault

// The values of Fault.Reason: few and fixed, for they label metrics.
const (
	ReasonUnreadable  = reload.ReasonUnreadable
	ReasonParse       = reload.ReasonParse
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
