package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	// ErrUnmapped: no rule matches the certificate.
	ErrUnmapped = errors.New("no rule of the users file matches the certificate")
	// ErrBadUser: the certificate gives no acceptable user for the rule's template.
	ErrBadUser = errors.New("the certificate gives no acceptable user name")
)

// Users are the rules of one users file, in its order.
type Users struct {
	rules []*Rule
	index *index // of the rules' patterns
}

// Rule maps the certificates that have all of its patterns to a user of the backend.
type Rule struct {
	Line int // in the users file; no part of Digest
	// User is a name, or a template with {cn}.
	User string
	// ClientAuth lets the client authenticate as somebody else later on.
	ClientAuth bool
	// DryRun only reports what Allow and Deny would refuse.
	DryRun bool
	// Allow and Deny hold NAME and NAME|SUBCOMMAND in upper case and @category in
	// lower case. An empty Allow sets no limit.
	Allow, Deny []string

	// Commands is what who understands Allow and Deny made of them, left here
	// before the rules are used by several goroutines.
	Commands any

	patterns     []Pattern
	passwordFile string // as written
	passwordEnv  string
	dir          string // of the users file: where a relative passwordFile starts
}

// Match is the backend user that a certificate is mapped to.
type Match struct {
	Rule *Rule
	User string
	// Index of the rule in the file: of several matches of one certificate, by
	// several chains, the lowest counts.
	Index int
}

// Match finds the first rule whose patterns all match. The error is ErrUnmapped,
// or ErrBadUser where that rule's template gives no acceptable name: later rules
// are not asked then.
func (u *Users) Match(s *Subject) (Match, error) {
	i := u.index.first(s)
	if i < 0 {
		return Match{}, ErrUnmapped
	}
	r := u.rules[i]
	user, err := r.userOf(s)
	if err != nil {
		return Match{}, err
	}
	return Match{Rule: r, User: user, Index: i}, nil
}

// Rules in the order of the file.
func (u *Users) Rules() []*Rule { return slices.Clone(u.rules) }

// Patterns are those of match: all must hold.
func (r *Rule) Patterns() []Pattern { return slices.Clone(r.patterns) }

// PasswordFiles are those of rules that are no templates, each once.
func (u *Users) PasswordFiles() []string {
	var files []string
	for _, r := range u.rules {
		if r.passwordFile != "" && !r.Template() && !slices.Contains(files, r.passwordPath(r.User)) {
			files = append(files, r.passwordPath(r.User))
		}
	}
	return files
}

// Mapping is a digest of whom the rule maps to, without the patterns, the place
// of the password and the command rules.
func (r *Rule) Mapping() [32]byte {
	h := sha256.New()
	writeStrings(h, []string{r.User, fmt.Sprint(r.ClientAuth)})
	return [32]byte(h.Sum(nil))
}

// Digest changes with what the rules mean, not with comments, layout or order
// within a rule. It knows where passwords are, not what they are.
func (u *Users) Digest() [32]byte {
	h := sha256.New()
	for _, r := range u.rules {
		sum := r.Digest()
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// Digest of this rule, as in Users.Digest.
func (r *Rule) Digest() [32]byte {
	h := sha256.New()
	writeStrings(h, []string{r.User, r.passwordFile, r.passwordEnv, fmt.Sprint(r.ClientAuth, r.DryRun)})
	writeStrings(h, canonical(r.patterns))
	writeStrings(h, sortedSet(r.Allow))
	writeStrings(h, sortedSet(r.Deny))
	return [32]byte(h.Sum(nil))
}

// cnPlaceholder and userPlaceholder stand for the leaf's common name in user, and
// for the user that came of it in password_file.
const (
	cnPlaceholder   = "{cn}"
	userPlaceholder = "{user}"
)

// Template reports whether User is made from the certificate.
func (r *Rule) Template() bool { return strings.Contains(r.User, cnPlaceholder) }

func (r *Rule) userOf(s *Subject) (string, error) {
	if !r.Template() {
		return r.User, nil
	}
	user := ""
	if len(s.cn) == 1 {
		user = strings.ReplaceAll(r.User, cnPlaceholder, s.cn[0])
	}
	if !isDerivedUser(user) {
		return "", r.badUser()
	}
	return user, nil
}

func (r *Rule) badUser() error {
	return fmt.Errorf("%w for %q (line %d of the users file)\nwant neither default, . nor .. but 1 to 64 of A-Z a-z 0-9 . _ -",
		ErrBadUser, r.User, r.Line)
}

var derivedUser = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// isDerivedUser: a name that a certificate brings becomes part of a path and an
// argument of AUTH, and never default, the user of clients without a mapping.
func isDerivedUser(user string) bool {
	return derivedUser.MatchString(user) && user != "." && user != ".." && !strings.EqualFold(user, "default")
}
