package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"

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

	cache *usersCache // of the Store
}

func (l *Login) required() bool { return l.Allow != nil || l.AllowFile != "" || l.UsersFile != "" }

// login is the parsed form in a snapshot.
type login struct {
	allow *identity.Set   // nil: every certificate may
	users *identity.Users // nil: nobody is mapped
}

func parseLogin(c reload.Contents, o *Login) (login, error) {
	var l login
	var all faults
	patterns := slices.Clone(o.Allow)
	if o.AllowFile != "" {
		more, err := parseAllowFile(c, o.AllowFile)
		all.add(err)
		patterns = append(patterns, more...)
	}
	if patterns != nil {
		l.allow = identity.NewSet(patterns)
	}
	if o.UsersFile != "" {
		var err error
		l.users, err = parseUsers(c, o)
		all.add(err)
	}
	return l, all.join()
}

func parseAllowFile(c reload.Contents, file string) ([]identity.Pattern, error) {
	data, err := c.Get(file)
	if err != nil {
		return nil, err
	}
	patterns, err := identity.ParseList(data)
	if err == nil && len(patterns) == 0 {
		err = errors.New("it holds no pattern and would refuse everybody")
	}
	if err != nil {
		return nil, newFault(file, ReasonAllow, "write one pattern a line, such as dns:*.apps.internal", "read patterns %q: %w", file, err)
	}
	return patterns, nil
}

// usersCache keeps what the file held last: passwords are judged when it changes,
// so that one which went away later holds back no other file. Used by one reload
// at a time.
type usersCache struct {
	file  [32]byte // SHA-256
	users *identity.Users
}

func parseUsers(c reload.Contents, o *Login) (*identity.Users, error) {
	data, err := c.Get(o.UsersFile)
	if err != nil {
		return nil, err
	}
	cache := o.cache
	if cache == nil {
		cache = &usersCache{}
	}
	sum := sha256.Sum256(data)
	if cache.users != nil && cache.file == sum {
		return cache.users, nil
	}
	users, err := identity.ParseUsers(o.UsersFile, data)
	if err == nil {
		err = users.CheckPasswords()
	}
	if err == nil && o.CheckUsers != nil {
		err = o.CheckUsers(users)
	}
	if err != nil {
		return nil, newFault(o.UsersFile, ReasonUsers, "", "read users %q: %w", o.UsersFile, err)
	}
	*cache = usersCache{file: sum, users: users}
	return users, nil
}

// admit decides about a verified chain, and says who it is.
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
