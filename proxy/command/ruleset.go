package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// RuleOptions list commands, in upper or lower case: NAME (with all its subcommands), NAME|SUBCOMMAND, @category or @all. A
// name need not be a known one.
//
// The categories are those of ACL CAT in Dragonfly v1.40.1 and Redis 7.0.15, which do not agree about every command. The
// stricter reading holds: an @category in Deny has each command that at least one of the two puts there; in Allow it has
// each command that both put there, or that one does if the other gives the command no category at all. In each of the two
// a subcommand has its own categories, or those of its command if it has none. No category has a command that neither
// of the two puts there: JSON.SET, for example, is in @json, and neither in @read nor in @write.
type RuleOptions struct {
	Allow []string // if it is empty, all commands pass; otherwise only those listed do
	Deny  []string // wins over Allow
	// DryRun lets pass what would be refused, and only counts and logs it.
	DryRun bool
}

// NewRules returns nil Rules if there is no entry, and an error that lists all faults. AUTH, HELLO, QUIT and RESET pass
// unless Deny lists them by name, since clients need them to connect and to leave.
func NewRules(o RuleOptions) (*Rules, error) {
	if len(o.Allow) == 0 && len(o.Deny) == 0 {
		return nil, nil
	}
	c := theCatalogue()
	allow, errAllow := c.entries("allow", o.Allow)
	deny, errDeny := c.entries("deny", o.Deny)
	if err := errors.Join(errAllow, errDeny); err != nil {
		return nil, err
	}
	b := &ruleBook{c: c, allow: allow, deny: deny}
	r := &Rules{
		options: RuleOptions{Allow: slices.Clone(o.Allow), Deny: slices.Clone(o.Deny)}, dryRun: o.DryRun,
		custom: make(map[string]ruling), except: make(map[string][]byte),
		noted: make([]atomic.Uint32, len(c.names)/32+1),
	}
	for _, name := range c.names {
		r.rulings = append(r.rulings, b.ruling(name, r.except))
	}
	r.unknown = passes
	if b.refuses("", "") {
		r.unknown = refused
	}
	for _, name := range append(allow.unlisted(c), deny.unlisted(c)...) {
		if _, known := r.custom[name]; !known {
			r.custom[name] = b.ruling(name, r.except)
		}
	}
	return r, nil
}

// entries is the list Allow or Deny, parsed.
type entries struct {
	given      bool // the list is not empty
	all        bool // it has @all
	categories categories
	names      map[string]bool     // entries NAME
	subs       map[string][]string // entries NAME|SUB: each SUB by NAME
}

// byName reports whether an entry names the command or the subcommand.
func (e *entries) byName(name, sub string) bool {
	return e.names[name] || slices.Contains(e.subs[name], sub)
}

// unlisted returns the command names that are not in the catalogue, sorted.
func (e *entries) unlisted(c *catalogue) (names []string) {
	add := func(name string) {
		if c.rows[name] == nil {
			names = append(names, name)
		}
	}
	for name := range e.names {
		add(name)
	}
	for name := range e.subs {
		add(name)
	}
	slices.Sort(names)
	return names
}

// ruleBook decides about every command in advance, when NewRules makes the Rules.
type ruleBook struct {
	c           *catalogue
	allow, deny *entries
}

// refuses reports whether the entries refuse a command or, unless sub is empty, this subcommand of it.
func (b *ruleBook) refuses(name, sub string) bool {
	switch name {
	case "AUTH", "HELLO", "QUIT", "RESET":
		return b.deny.byName(name, sub)
	}
	m := b.c.of(name, sub)
	covers := func(e *entries, of categories) bool {
		return e.all || e.categories&of != 0 || e.byName(name, sub)
	}
	return covers(b.deny, m.any) || b.allow.given && !covers(b.allow, m.every)
}

// ruling returns the ruling of a command. It adds the subcommands that are not ruled like the command to except.
func (b *ruleBook) ruling(name string, except map[string][]byte) ruling {
	refusesAll := b.refuses(name, "")
	differ := false
	decide := func(sub string, of *row) {
		if b.refuses(name, sub) == refusesAll {
			return
		}
		differ = true
		if refusesAll {
			except[of.full] = nil
		} else {
			except[of.full] = of.forbidden
		}
	}
	known := b.c.row(name).subs
	for sub, of := range known {
		decide(sub, of)
	}
	for _, sub := range append(slices.Clone(b.allow.subs[name]), b.deny.subs[name]...) {
		if known[sub] == nil {
			decide(sub, &row{full: name + "|" + sub, forbidden: forbiddenText("the command " + name + " " + sub)})
		}
	}
	switch {
	case refusesAll && differ:
		return refusedBut
	case refusesAll:
		return refused
	case differ:
		return passesBut
	}
	return passes
}

// entries parses a list; which is its name for errors.
func (c *catalogue) entries(which string, list []string) (*entries, error) {
	e := &entries{given: len(list) > 0, names: make(map[string]bool), subs: make(map[string][]string)}
	var faults []error
	for _, entry := range list {
		if err := c.entry(e, strings.TrimSpace(entry)); err != nil {
			faults = append(faults, fmt.Errorf("%s %q: %w", which, entry, err))
		}
	}
	return e, errors.Join(faults...)
}

// entry parses one entry into e.
func (c *catalogue) entry(e *entries, entry string) error {
	if category, ok := strings.CutPrefix(strings.ToLower(entry), "@"); ok {
		if category == "all" {
			e.all = true
			return nil
		}
		bit := c.bits[category]
		if bit == 0 {
			return fmt.Errorf("no such category\ndid you mean @%s?", c.nearestCategory(category))
		}
		e.categories |= bit
		return nil
	}
	name, sub, hasSub := strings.Cut(strings.ToUpper(entry), "|")
	switch {
	case name == "" || hasSub && sub == "":
		return errors.New("want NAME, NAME|SUBCOMMAND or @category")
	case len(name) > maxName || len(sub) > maxName:
		return fmt.Errorf("a name has at most %d bytes", maxName)
	case strings.ContainsFunc(entry, notPlain):
		return errors.New("a name is printable ASCII without blanks\nwrite NAME|SUBCOMMAND for a subcommand")
	case strings.Contains(sub, "|"):
		return errors.New("a subcommand has none of its own\nwrite NAME|SUBCOMMAND")
	case strings.ContainsAny(name[:1], "+-~&%"):
		return errors.New("this is a rule of an ACL user\nwrite the command's name alone, in allow or in deny")
	case hasSub:
		e.subs[name] = append(e.subs[name], sub)
	default:
		e.names[name] = true
	}
	return nil
}

func notPlain(r rune) bool { return r < '!' || r > '~' }
