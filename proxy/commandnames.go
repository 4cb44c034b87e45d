package proxy

import (
	_ "embed"
	"strings"
	"sync"
)

// commandsText lists the commands that are known by name, with their categories.
//
//go:embed commands.txt
var commandsText string

// categories is a set of ACL categories: a bit each.
type categories uint64

// catalogue is commandsText as it is asked. Never modified.
type catalogue struct {
	names []string // by id
	ids   map[string]int
	own   []categories                     // by id
	subs  map[string]map[string]categories // by name: of subcommands that have categories of their own
	bits  map[string]categories            // by the category's name, lower case
}

// commandCatalogue is the one catalogue of this program.
var commandCatalogue = sync.OnceValue(func() *catalogue { return newCatalogue(commandsText) })

func newCatalogue(text string) *catalogue {
	c := &catalogue{
		ids:  make(map[string]int),
		subs: make(map[string]map[string]categories),
		bits: make(map[string]categories),
	}
	for line := range strings.Lines(text) {
		if line[0] == '#' {
			continue
		}
		full, list, _ := strings.Cut(strings.TrimSpace(line), " ")
		of := c.set(list)
		name, sub, isSub := strings.Cut(full, "|")
		switch {
		case !isSub:
			c.ids[name] = len(c.names)
			c.names = append(c.names, name)
			c.own = append(c.own, of)
		case c.subs[name] == nil:
			c.subs[name] = map[string]categories{sub: of}
		default:
			c.subs[name][sub] = of
		}
	}
	c.bits["hyperloglog"] = c.bits["hyperlog"] // as Redis calls it
	return c
}

// set is the set of a comma-separated list.
func (c *catalogue) set(list string) (of categories) {
	for name := range strings.SplitSeq(list, ",") {
		if name == "" {
			continue
		}
		if c.bits[name] == 0 {
			c.bits[name] = 1 << len(c.bits)
		}
		of |= c.bits[name]
	}
	return of
}

// of is the categories of a command or of one of its subcommands; none for what is not known.
func (c *catalogue) of(name, sub string) categories {
	if own, ok := c.subs[name][sub]; ok {
		return own
	}
	if id, ok := c.ids[name]; ok {
		return c.own[id]
	}
	return 0
}
