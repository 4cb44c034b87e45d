package config

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Load reads environ, in the form of os.Environ. The error is Faults; the Config then holds what could be understood,
// so that the caller can look for faults in the files that it names, and is good for nothing else.
func Load(environ []string) (Config, error) { return LoadWith(environ, nil) }

// LoadWith is Load of environ and, for variables that environ does not set, of a file. What environ sets to nothing is set.
func LoadWith(environ []string, file *EnvFile) (Config, error) {
	return loadOn(thisMachine(), environ, file)
}

// loader gathers what is wrong while one Config is made.
type loader struct {
	config   Config
	machine  machine
	values   map[string]string // of our variables, by full name
	origins  map[string]string // file and line of those that the file sets, by full name
	explicit map[string]bool   // set to something, by short name
	faults   Faults
	faulty   map[string]bool // by short name: no second fault for the same value
}

func loadOn(m machine, environ []string, file *EnvFile) (Config, error) {
	l := loader{machine: m, values: map[string]string{}, explicit: map[string]bool{}, faulty: map[string]bool{}}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && strings.HasPrefix(name, Prefix) {
			l.values[name] = value
		}
	}
	l.addFile(file)
	l.refuseUnknown()
	l.parse()
	l.validate()
	l.checkFileMode(file)
	if len(l.faults) > 0 {
		slices.SortStableFunc(l.faults, func(a, b Fault) int {
			return cmp.Compare(order(a.Variable), order(b.Variable))
		})
		return l.config, l.faults
	}
	return l.config, nil
}

func (l *loader) parse() {
	err := env.ParseWithOptions(&l.config, env.Options{
		Prefix:      Prefix,
		Environment: l.values,
		FuncMap:     parsers,
		OnSet: func(name string, value any, isDefault bool) {
			l.explicit[strings.TrimPrefix(name, Prefix)] = !isDefault && value != ""
		},
	})
	// env takes an empty value for an unset one; here it means "disabled".
	if v, ok := l.values[Prefix+"ADMIN_LISTEN"]; ok && v == "" {
		l.config.AdminListen = ""
	}
	all, _ := errors.AsType[env.AggregateError](err)
	for _, err := range all.Errors {
		l.refuseField(err)
	}
}

// refuseField turns an error of env into a fault without its text, which may
// quote the value.
func (l *loader) refuseField(err error) {
	bad := badValue{accepted: "another form"}
	if e, ok := errors.AsType[env.ParseError](err); ok {
		errors.As(e.Err, &bad) // ParseError has no Unwrap
		if f, ok := reflect.TypeFor[Config]().FieldByName(e.Name); ok {
			if r := rangeOf(f); r != "" {
				bad.accepted += ", " + r
			}
			l.refuse(f.Tag.Get("env"), bad.accepted, bad.cure)
			return
		}
	}
	l.refuse("", bad.accepted, bad.cure)
}

// refuse notes a fault of the variable with that short name.
func (l *loader) refuse(name, accepted, cure string) {
	value := l.values[Prefix+name]
	shown := showable(name, value)
	fault := Fault{Variable: Prefix + name, Hidden: !shown, Accepted: accepted, Cure: cure, Origin: l.origins[Prefix+name]}
	if shown {
		fault.Value = value
	}
	l.faults = append(l.faults, fault)
	l.faulty[name] = true
}

// showable reports whether a value can be in an error. The path of a secret is
// shown where it looks like one: people set a _FILE variable to the secret itself.
func showable(name, value string) bool {
	if value == "" {
		return true
	}
	// Longer than a sensible path, or PEM: a key where its file was wanted.
	if len(value) > 150 || strings.Contains(value, "-----BEGIN") {
		return false
	}
	f, ok := fieldOf(name)
	switch {
	case !ok || f.Tag.Get("secret") != "":
		return false
	case f.Tag.Get("form") == "secretfile":
		return looksLikePath(value)
	}
	return true
}

func looksLikePath(s string) bool {
	return !strings.ContainsAny(s, "\r\n") &&
		(strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../"))
}
