package config

import "fmt"

// Note tells of a setting what is no fault and should be known: it is logged at start, and `check` reports it.
type Note struct {
	Kind     NoteKind
	Variable string // full name, or empty where no variable is concerned
	Text     string // follows the name
}

// NoteKind says what a Note is about.
type NoteKind uint8

const (
	NoteDescriptors       NoteKind = iota + 1 // a default was lowered to fit the limit of open files
	NoteMemory                                // a default was lowered to fit MEMORY_LIMIT, or that is a guess
	NoteClientAuth                            // clients without a certificate get in
	NoteCRLExpired                            // an expired CRL refuses nobody
	NoteAdminToken                            // nobody can read the metrics
	NoteNothingDenied                         // DENY_COMMANDS is none
	NoteDefaultsDropped                       // DENY_COMMANDS replaces the default list and drops some of it
	NoteRemoved                               // DENY_COMMANDS removes a default by name
	NoteNotDenied                             // DENY_COMMANDS removes what is not in the list
	NoteProxyFromAll                          // PROXY_PROTOCOL_FROM is everybody
	NoteEnvFileMode                           // everybody may read a secret in the file of --env-file
	NoteEnvFileOverridden                     // the environment sets what the file sets too
	NoteEnvFileIgnored                        // the file has variables that are not ours
)

func (n Note) String() string {
	if n.Variable == "" {
		return n.Text
	}
	return n.Variable + " " + n.Text
}

// note adds a Note about the variable with that short name; empty: about none.
func (l *loader) note(kind NoteKind, variable, format string, args ...any) {
	if variable != "" {
		variable = Prefix + variable
	}
	l.config.Notes = append(l.config.Notes, Note{kind, variable, fmt.Sprintf(format, args...)})
}
