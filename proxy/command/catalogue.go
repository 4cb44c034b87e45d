package command

import (
	"cmp"
	_ "embed"
	"strings"
	"sync"
)

// commandsText lists the commands that are known by name, with their categories and classes.
//
//go:embed commands.txt
var commandsText string

// categories is a set of ACL categories: a bit each.
type categories uint64

// marks are the categories of a command in two readings of its sources.
type marks struct {
	any   categories // one source at least says so: what is denied
	every categories // all say so that say anything: what is allowed
}

// subcommand is a row of its own.
type subcommand struct {
	marks
	class     Class
	full      string // NAME|SUB
	forbidden []byte // the reply where rules refuse it alone
}

// catalogue is commandsText as it is asked. Never modified.
type catalogue struct {
	names   []string // by id
	ids     map[string]int
	own     []marks                           // by id
	classes []Class                           // by id
	subs    map[string]map[string]*subcommand // by name: of subcommands that have a row of their own
	bits    map[string]categories             // by the category's name, lower case
}

// theCatalogue is the one catalogue of this program.
var theCatalogue = sync.OnceValue(func() *catalogue { return newCatalogue(commandsText) })

func newCatalogue(text string) *catalogue {
	c := &catalogue{
		ids:  make(map[string]int),
		subs: make(map[string]map[string]*subcommand),
		bits: make(map[string]categories),
	}
	var dragonfly, redis categories // of the name read last
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
		if !isSub {
			dragonfly, redis = d, r
			c.ids[name] = len(c.names)
			c.names = append(c.names, name)
			c.own = append(c.own, read(d, r))
			c.classes = append(c.classes, classNamed(fields[3]))
			continue
		}
		if c.subs[name] == nil {
			c.subs[name] = make(map[string]*subcommand)
		}
		c.subs[name][sub] = &subcommand{
			marks: read(cmp.Or(d, dragonfly), cmp.Or(r, redis)), class: classNamed(fields[3]),
			full: name + "|" + sub, forbidden: forbiddenText("the command " + name + " " + sub),
		}
	}
	c.bits["hyperloglog"] = c.bits["hyperlog"] // as Redis calls it
	return c
}

// read takes the categories of both sources; none: that one says nothing.
func read(dragonfly, redis categories) marks {
	m := marks{any: dragonfly | redis, every: dragonfly & redis}
	if dragonfly == 0 || redis == 0 {
		m.every = m.any
	}
	return m
}

// set is the set of a comma-separated list.
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

// onlyReads says that every source calls the command one that reads, and none one that writes.
func (c *catalogue) onlyReads(name string) bool {
	m := c.own[c.ids[name]]
	return m.every&c.bits["read"] != 0 && m.any&c.bits["write"] == 0
}

// of is the categories of a command or of one of its subcommands; none for what is not known.
func (c *catalogue) of(name, sub string) marks {
	if own, ok := c.subs[name][sub]; ok {
		return own.marks
	}
	if id, ok := c.ids[name]; ok {
		return c.own[id]
	}
	return marks{}
}
