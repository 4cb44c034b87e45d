package command

import (
	"cmp"
	_ "embed"
	"strings"
	"sync"
)

// commandsText lists the known commands, with their categories and classes.
//
//go:embed commands.txt
var commandsText string

// categories is a set of ACL categories, one bit for each.
type categories uint64

// marks are the categories of a command in two readings of the sources, which are Dragonfly and Redis.
type marks struct {
	any   categories // those that at least one source gives it: these decide what is denied
	every categories // those that every source gives it that gives it any: these decide what is allowed
}

// row is what commands.txt says of a command, or of a subcommand that has a line of its own.
type row struct {
	marks
	class     Class
	subs      map[string]*row // for a command: its subcommands that have a row of their own, or nil
	full      string          // for a subcommand: NAME|SUB
	forbidden []byte          // for a subcommand: the reply if the rules refuse it, but not the command
}

// catalogue is commandsText in a form to look things up in. It is never modified.
type catalogue struct {
	names []string              // in the order of their rows
	rows  map[string]*row       // by name
	bits  map[string]categories // by the category's name in lower case
}

// theCatalogue is the one catalogue of this program.
var theCatalogue = sync.OnceValue(func() *catalogue { return newCatalogue(commandsText) })

func newCatalogue(text string) *catalogue {
	c := &catalogue{rows: make(map[string]*row), bits: make(map[string]categories)}
	var dragonfly, redis categories // of the last NAME without a subcommand
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case line[0] == '#':
			continue
		case line[0] == '@':
			c.set(line[1:])
			continue
		}
		d, r := c.set(fields[1]), c.set(fields[2])
		name, sub, isSub := strings.Cut(fields[0], "|")
		of := c.row(name)
		c.rows[name] = of
		if !isSub {
			dragonfly, redis = d, r
			c.names = append(c.names, name)
			of.marks, of.class = read(d, r), classNamed(fields[3])
			continue
		}
		if of.subs == nil {
			of.subs = make(map[string]*row)
		}
		of.subs[sub] = &row{
			marks: read(cmp.Or(d, dragonfly), cmp.Or(r, redis)), class: classNamed(fields[3]),
			full: name + "|" + sub, forbidden: forbiddenText("the command " + name + " " + sub),
		}
	}
	c.bits["hyperloglog"] = c.bits["hyperlog"] // as Redis calls it
	return c
}

// read combines the categories that the two sources give a command. A source that gives it none has no say.
func read(dragonfly, redis categories) marks {
	m := marks{any: dragonfly | redis, every: dragonfly & redis}
	if dragonfly == 0 || redis == 0 {
		m.every = m.any
	}
	return m
}

// set returns the set of categories in a comma-separated list, and gives a bit to each new one.
func (c *catalogue) set(list string) (of categories) {
	for name := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		if name == "-" {
			continue
		}
		if c.bits[name] == 0 {
			c.bits[name] = 1 << len(c.bits)
		}
		of |= c.bits[name]
	}
	return of
}

// row returns the row of a command, or an empty one if the command is not known.
func (c *catalogue) row(name string) *row {
	if r := c.rows[name]; r != nil {
		return r
	}
	return new(row)
}

// of returns the categories of a command or of one of its subcommands. An unknown command has none.
func (c *catalogue) of(name, sub string) marks {
	r := c.row(name)
	if own := r.subs[sub]; own != nil {
		return own.marks
	}
	return r.marks
}

// onlyReads reports whether every source that gives the command categories puts it into @read, and none puts it into @write.
func (c *catalogue) onlyReads(m marks) bool {
	return m.every&c.bits["read"] != 0 && m.any&c.bits["write"] == 0
}
