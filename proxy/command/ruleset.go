package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// RuleOptions are entries in any case: NAME (with all its subcommands), NAME|SUBCOMMAND, @category or @all. A
// name need not be known.
//
// The categories are those of ACL CAT, of Dragonfly v1.40.1 and Redis 7.0.15, which do not agree about every command. The
// stricter reading holds: Deny has a command where one of the two puts it into the category, Allow where both do, or the
// only one that gives it any. A subcommand has the categories that Redis gives it on its own, and those of its command in
// Dragonfly. A category has no command that the two do not know, and none that they did not put there: JSON.SET, for
// one, is in @json, and neither in @read nor in @write.
type RuleOptions struct {
	Allow []string // none: everything; otherwise nothing else passes, unknown commands included
	Deny  []string // wins over Allow
	// DryRun counts and logs what would be refused, and lets it pass.
	DryRun bool
}

// NewRules returns nil where there is no entry, and all faults at once. AUTH, HELLO, QUIT and RESET pass unless Deny
// has them by name: without them no client comes or goes in order.
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
			r.unlisted = append(r.unlisted, name)
		}
	}
	return r, nil
}

// entries is one of the two lists.
type entries struct {
	given      bool // one at least
	all        bool
	categories categories
	names      map[string]bool     // NAME
	subs       map[string][]string // NAME: SUB, ...
}

func (e *entries) byName(name, sub string) bool {
	return e.names[name] || slices.Contains(e.subs[name], sub)
}

// unlisted is the names that are not in the catalogue, sorted.
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

// ruleBook decides about each command once, when the rules are made.
type ruleBook struct {
	c           *catalogue
	allow, deny *entries
}

// refuses decides about a command, or about one of its subcommands.
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

// ruling of a command; the subcommands that differ from it are added to except.
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

// entries parses a list; which names it in errors.
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

func (c *catalogue) entry(e *entries, entry string) error {
	if category, ok := strings.CutPrefix(strings.ToLower(entry), "@"); ok {
		if category == "all" {
			e.all = true
			return nil
		}
		bit := c.bits[category]
		if bit == 0 {
			return fmt.Errorf("no such category\ndid you mean @%s?", c.nearest(category))
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

// nearest is the category whose name takes the fewest edits.
func (c *catalogue) nearest(to string) (name string) {
	best := int(^uint(0) >> 1)
	names := []string{"all"}
	for n := range c.bits {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if d := edits(n, to); d < best {
			name, best = n, d
		}
	}
	return name
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	b = b[:min(len(b), maxName)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
