// Package command knows commands by name: their traits, their class and so the connections that they may take, and which of
// them the deny list and the rules of a client refuse. It makes the decisions that need no more than the bytes of a command;
// those that depend on the state of a session are made in package proxy.
package command

import (
	"bytes"
	"fmt"
	"strings"

	"dragontls/proxy/resp"
)

// Command is one entry of a Table. Nothing modifies it after NewTable.
type Command struct {
	ID        int    // its place in Table.Names: that of "other" for each command that is not in the catalogue
	Name      string // in upper case; "other" for all commands that the table does not know
	OnlyReads bool   // it changes nothing, so it may be sent again
	traits    Trait
	class     Class
	known     map[string]*row // subcommands with a row of their own; nil: none has
	bound     bound
	hasSubs   bool              // its subcommand matters: known or subs has some
	forbidden []byte            // the reply if the rules of a client refuse it
	denied    []byte            // the reply if DENY_COMMANDS names it, or nil
	subs      map[string][]byte // by subcommand: the reply if DENY_COMMANDS names NAME|SUBCOMMAND
}

// Table knows commands by name, and which scripts are harmless. It is safe for concurrent use.
type Table struct {
	Names   []string // by Command.ID; the same for all tables. Nothing modifies it
	Other   *Command // every command that the table does not know
	byName  map[string]*Command
	scripts *scripts // shared with the tables that Deny returns
}

const (
	maxName = 64 // longer names are unknown
	blanks  = " \t\r\n\x00\v\f"
)

// NewTable returns a table of all commands of Dragonfly and Redis, and of those that deny names. Each entry of deny is NAME
// or NAME|SUBCOMMAND in any case, and makes Refusal refuse that command; an entry of another form is an error.
func NewTable(deny []string) (*Table, error) { return buildTable(deny, &scripts{}) }

// Deny returns a table that denies other commands, and knows the same harmless scripts.
func (t *Table) Deny(deny []string) (*Table, error) { return buildTable(deny, t.scripts) }

func buildTable(deny []string, known *scripts) (*Table, error) {
	t := &Table{byName: make(map[string]*Command), scripts: known}
	all := theCatalogue()
	for _, name := range all.names {
		c, r := t.add(name), all.rows[name]
		c.class, c.known, c.OnlyReads, c.bound = r.class, r.subs, all.onlyReads(r.marks), boundOf(name)
		c.hasSubs = c.known != nil
	}
	t.Other = &Command{ID: len(t.Names), Name: "other", forbidden: forbiddenText("this command")}
	t.Names = append(t.Names, "other")
	for _, d := range deny {
		name, sub, hasSub := strings.Cut(strings.ToUpper(strings.TrimSpace(d)), "|")
		if name == "" || len(name) > maxName || len(sub) > maxName || hasSub && sub == "" {
			return nil, fmt.Errorf("deny %q: want NAME or NAME|SUBCOMMAND", d)
		}
		c := t.byName[name]
		if c == nil {
			c = newCommand(t.Other.ID, name)
			t.byName[name] = c
		}
		if !hasSub {
			c.denied = deniedText(name)
			continue
		}
		if c.subs == nil {
			c.subs, c.hasSubs = make(map[string][]byte), true
		}
		c.subs[sub] = deniedText(name + " " + sub)
	}
	return t, nil
}

func (t *Table) add(name string) *Command {
	c := newCommand(len(t.Names), name)
	t.byName[name] = c
	t.Names = append(t.Names, name)
	return c
}

func newCommand(id int, name string) *Command {
	return &Command{ID: id, Name: name, traits: traits[name], forbidden: forbiddenText("the command " + name)}
}

// Lookup returns the command with this name, in any case, or Other if the table does not have it. Of a name that holds a
// blank (Dragonfly takes "ACL WHOAMI" as one name) only the first word counts, and rest is what follows it. exact reports
// whether name is the name of a command of the table and nothing more. hot
func (t *Table) Lookup(name []byte) (c *Command, rest []byte, exact bool) {
	length := len(name)
	if len(name) > 0 && name[0] <= ' ' {
		name = bytes.TrimLeft(name, blanks)
	}
	var upper [maxName]byte
	n := 0
	for ; n < len(name); n++ {
		b := name[n]
		if b <= ' ' {
			rest = bytes.TrimLeft(name[n:], blanks)
			break
		}
		if n == maxName {
			return t.Other, nil, false
		}
		upper[n] = upperByte(b)
	}
	if c := t.byName[string(upper[:n])]; c != nil {
		return c, rest, n == length
	}
	return t.Other, rest, false
}

// Refusal returns the refusal of a command that DENY_COMMANDS denies, or that holds a NUL in its name, or in its subcommand
// if that matters. It returns nil for any other command. exact is what Lookup returned for name. hot
func (c *Command) Refusal(name, sub []byte, exact bool) []byte {
	if exact && !c.hasSubs {
		return c.denied
	}
	return c.refusal(name, sub, exact)
}

// Traits returns the traits of the command with this subcommand, which must be complete or nil. hot
func (c *Command) Traits(sub []byte) Trait {
	if c.traits&(uncountIf|databaselessIf) == 0 {
		return c.traits
	}
	return c.traitsWith(sub)
}

// Classify returns the class of a command with all its arguments: frame is its canonical frame, of args arguments, and sub
// the second of them, or nil. As with Class the name must be exact. The result is never Plain or UnboundedPlain: those have
// become Quiet, Unbounded or Own. Classify also remembers the bodies of harmless scripts. hot
func (t *Table) Classify(c *Command, sub, frame []byte, args int) Class {
	class := c.Class(sub)
	switch class {
	case Quiet:
		if c.bound != (bound{}) && c.bound.exceeded(frame, args) {
			return Unbounded
		}
	case Plain, UnboundedPlain:
		switch {
		case holdsLineBreak(frame, args):
			return Own
		case class == Plain:
			return Quiet
		}
		return Unbounded
	case Script:
		if t.scripts.harmless(resp.SplitArgs(frame, nil)) {
			return Own
		}
		return Script
	}
	if c.Name == "SCRIPT" && args == 3 && IsWord(sub, "LOAD") {
		t.scripts.remember(resp.SplitArgs(frame, nil)[2])
	}
	return class
}

// Class returns the class that commands.txt gives the command with this second argument, which may be nil. The result means
// nothing if Lookup did not find the name to be exact: what Dragonfly makes of "ACL WHOAMI" as one word is unknown. hot
func (c *Command) Class(sub []byte) Class {
	if c.known == nil || len(sub) > maxName {
		return c.class
	}
	var upper [maxName]byte
	for i, b := range sub {
		upper[i] = upperByte(b)
	}
	if s := c.known[string(upper[:len(sub)])]; s != nil {
		return s.class
	}
	return c.class
}
