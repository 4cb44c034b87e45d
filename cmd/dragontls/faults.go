package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/rs/zerolog"

	"dragontls/certs"
	"dragontls/config"
)

// source is where the variables come from.
type source struct {
	environ []string // in the form of os.Environ
	envFile string   // path of the file of --env-file, which is read again at each load; empty: none
}

// load reads the variables alone.
func (f source) load() (config.Config, error) {
	return config.LoadWith(f.environ, config.ReadEnvFile(f.envFile))
}

// value returns the value of a variable before it is judged, or "" if it is not set.
func (f source) value(name string) string {
	if set(f.environ, name) {
		return valueOf(f.environ, name)
	}
	return config.ReadEnvFile(f.envFile).Value(name)
}

// configure reads the variables. The error then holds every fault of theirs, and every fault of the files, patterns and
// users that they name, as far as the variables could be understood: a person should have to correct a configuration once.
// That a file of coming is missing is no fault.
func configure(from source, coming ...string) (config.Config, error) {
	c, err := from.load()
	faults, ok := errors.AsType[config.Faults](err)
	if !ok {
		return c, err // nil: the code that opens the files reports their faults
	}
	found := examine(c, faults)
	faults = slices.DeleteFunc(faults, func(f config.Fault) bool { return f.File != "" && slices.Contains(coming, f.File) })
	if len(faults) > 0 {
		found = append([]error{faults}, found...)
	}
	return c, errors.Join(found...)
}

// examine returns the faults in what c names, but for those that the variables have: a file that cannot be read is one.
func examine(c config.Config, known config.Faults) (found []error) {
	s := &service{c: c, log: zerolog.Nop()}
	options, loginErr := s.storeOptions()
	all := []error{loginErr, certs.Examine(options)}
	if c.BackendCAFile != "" || c.BackendCertFile != "" && c.BackendKeyFile != "" {
		_, err := certs.OpenClient(s.clientOptions())
		all = append(all, err)
	}
	for _, err := range flat(all) {
		f, ok := errors.AsType[*certs.Fault](err)
		if ok && slices.ContainsFunc(known, func(k config.Fault) bool { return k.File != "" && k.File == f.File }) {
			continue
		}
		found = append(found, err)
	}
	return found
}

// flat returns the errors in list and in those that are joined, nil left out.
func flat(list []error) (all []error) {
	for _, err := range list {
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			all = append(all, flat(many.Unwrap())...)
		} else if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// configFault says what is wrong with the configuration and returns the exit code.
func configFault(out faultWriter, err error) int {
	out.fatal("bad configuration", err)
	return exitConfig
}

// faultWriter tells people or programs why dragontls does not start.
type faultWriter interface {
	fatal(message string, err error)
}

// plainFaults tells people.
type plainFaults struct{ w io.Writer }

func (p plainFaults) fatal(message string, err error) {
	fmt.Fprintf(p.w, "dragontls: %s\n%v\n", message, err)
}

// listenError is why a listener cannot be opened.
type listenError struct {
	variable string // that names its address
	err      error
	cure     string
}

func (e *listenError) Error() string { return e.err.Error() + "\n" + e.cure }
func (e *listenError) Unwrap() error { return e.err }

// faultFindings is what a bad configuration is in the form of a report. Its text is what serve prints.
func faultFindings(err error) (found []certs.Finding) {
	for _, err := range flat([]error{err}) {
		if faults, ok := errors.AsType[config.Faults](err); ok {
			for _, f := range faults {
				cure := f.Cure
				f.Cure = ""
				found = append(found, certs.Finding{ID: "configuration", Severity: certs.SeverityError, Subject: f.Variable, Message: f.String(), Cure: cure})
			}
			continue
		}
		f := certs.Finding{ID: "configuration", Severity: certs.SeverityError, Subject: "configuration", Message: err.Error()}
		if occupied, ok := errors.AsType[*listenError](err); ok {
			f.ID, f.Subject, f.Message, f.Cure = "listen", occupied.variable, occupied.err.Error(), occupied.cure
		}
		if fault, ok := errors.AsType[*certs.Fault](err); ok {
			f.ID, f.Message, f.Cure = fault.Reason, fault.Err.Error(), fault.Cure
			if fault.File != "" {
				f.Subject = fault.File
			}
		}
		found = append(found, f)
	}
	return found
}
