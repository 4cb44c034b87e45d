package certs

import (
	"crypto/x509"
	"errors"

	"dragontls/certs/identity"
	"dragontls/certs/reload"
)

// ErrNotAllowed refuses a client whose certificate no allow pattern matches; a
// client that no rule of the users file maps is refused by identity.ErrUnmapped
// or identity.ErrBadUser.
var ErrNotAllowed = errors.New("no allow pattern matches the client certificate")

// Login says which verified certificates may connect, and as whom.
type Login struct {
	// Allow holds patterns, one of which must match. Nil: every certificate may.
	Allow []identity.Pattern
	// AllowFile holds more of them, one a line; "#" begins a comment.
	AllowFile string
	// UsersFile maps certificates to users of the backend. Empty: it maps nobody.
	UsersFile string
	// CheckUsers, if not nil, judges what only others understand of the rules. Its
	// error keeps the file from being taken into use.
	CheckUsers func(*identity.Users) error
}

func (l *Login) required() bool { return l.Allow != nil || l.AllowFile != "" || l.UsersFile != "" }

// login is the parsed form in a snapshot.
type login struct {
	allow *identity.Set   // nil: every certificate may
	users *identity.Users // nil: nobody is mapped
}

func parseAllowFile(c reload.Contents, file string) ([]identity.Pattern, error) {
	data, err := c.Get(file)
	if err != nil {
		return nil, err
	}
	if isUTF16(data) {
		f, _ := recogniseText(file, data, "patterns")
		return nil, newFault(file, ReasonAllow, f.cure, "read patterns %q: %w", file, f)
	}
	patterns, err := identity.ParseList(withoutBOM(data))
	if err == nil && len(patterns) == 0 {
		err = errors.New("it holds no pattern and would refuse everybody")
	}
	if err != nil {
		return nil, newFault(file, ReasonAllow, "write one pattern a line, such as dns:*.apps.internal", "read patterns %q: %w", file, err)
	}
	return patterns, nil
}

// parseUsers judges the passwords too, with the file: one that goes away later is no fault of a reload.
func parseUsers(c reload.Contents, o *Login) (*identity.Users, error) {
	data, err := c.Get(o.UsersFile)
	if err != nil {
		return nil, err
	}
	if isUTF16(data) {
		f, _ := recogniseText(o.UsersFile, data, "users")
		return nil, newFault(o.UsersFile, ReasonUsers, f.cure, "read users %q: %w", o.UsersFile, f)
	}
	users, err := identity.ParseUsers(o.UsersFile, withoutBOM(data))
	all := faults{}
	all.add(err)
	if users != nil {
		all.add(users.CheckPasswords())
		if o.CheckUsers != nil {
			all.add(o.CheckUsers(users))
		}
	}
	for i, err := range all {
		all[i] = newFault(o.UsersFile, ReasonUsers, "", "read users %q: %w", o.UsersFile, err)
	}
	if len(all) > 0 {
		return nil, all.join()
	}
	return users, nil
}

// admit decides whether the client of a verified chain may connect, and as which user.
func (l *login) admit(chain []*x509.Certificate) (Peer, error) {
	subject := identity.FromChain(chain)
	if l.allow != nil && !l.allow.Matches(&subject) {
		return Peer{}, ErrNotAllowed
	}
	p := Peer{Identity: subject.ID, Name: subject.Name(), Serial: chain[0].SerialNumber.Text(16)}
	if l.users == nil {
		return p, nil
	}
	m, err := l.users.Match(&subject)
	if err != nil {
		return Peer{}, err
	}
	p.Rule, p.User, p.rule = m.Rule, m.User, m.Index
	return p, nil
}
