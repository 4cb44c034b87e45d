// Package command knows commands by name: their traits, their class and so the connections that they may take, and which of
// them the deny list and the rules of a client refuse. It makes the decisions that need no more than the bytes of a command;
// those that depend on the state of a session are made in package proxy.
package command

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Trait is a set of bits: what a session has to know about a command before it passes it on.
type Trait uint16

const (
	Blocking       Trait = 1 << iota // may wait for other clients
	MayBlock                         // Blocking if MentionsBlock reports true
	Uncounted                        // from this command on replies cannot be counted
	uncountIf                        // Uncounted if the subcommand is REPLY, see Traits
	OpensMulti                       // MULTI
	EndsMulti                        // EXEC, DISCARD
	Inspected                        // Inspect must see all its arguments, so the command must be held as a whole
	Resets                           // RESET
	Quits                            // QUIT
	Databaseless                     // means the same in every database, and a backend takes it while it runs a script
	databaselessIf                   // Databaseless if the subcommand is KILL or STATS, see Traits
	Scripting                        // after its reply the client may believe that the backend knows a script or a function
)

var traits = map[string]Trait{
	"BLPOP": Blocking, "BRPOP": Blocking, "BLMOVE": Blocking, "BRPOPLPUSH": Blocking, "BLMPOP": Blocking,
	"BZPOPMIN": Blocking, "BZPOPMAX": Blocking, "BZMPOP": Blocking, "WAIT": Blocking, "WAITAOF": Blocking,
	"XREAD": MayBlock, "XREADGROUP": MayBlock,
	"SUBSCRIBE": Uncounted, "PSUBSCRIBE": Uncounted, "SSUBSCRIBE": Uncounted,
	"UNSUBSCRIBE": Uncounted, "PUNSUBSCRIBE": Uncounted, "SUNSUBSCRIBE": Uncounted, "MONITOR": Uncounted,
	"SYNC": Uncounted, "PSYNC": Uncounted, "REPLCONF": Uncounted, "DFLY": Uncounted, "DFLYMIGRATE": Uncounted,
	"CLIENT": uncountIf,
	"MULTI":  OpensMulti, "EXEC": EndsMulti, "DISCARD": EndsMulti,
	"AUTH": Inspected, "HELLO": Inspected, "ACL": Inspected,
	"RESET": Resets, "QUIT": Quits,
	"EVAL": Scripting, "EVAL_RO": Scripting, "EVALSHA": Scripting, "EVALSHA_RO": Scripting, "SCRIPT": Scripting | databaselessIf,
	"FCALL": Scripting, "FCALL_RO": Scripting, "FUNCTION": Scripting | databaselessIf,
}

// Command is one entry of a Table. Nothing modifies it after NewTable.
type Command struct {
	ID        int    // its place in Table.Names
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
	Names   []string // by Command.ID. Nothing modifies it after NewTable
	Other   *Command // every command that the table does not know
	byName  map[string]*Command
	scripts scripts
}

const (
	maxName = 64 // longer names are unknown
	blanks  = " \t\r\n\x00\v\f"
)

// NewTable returns a table of all commands of Dragonfly and Redis, and of those that deny names. Each entry of deny is NAME
// or NAME|SUBCOMMAND in any case, and makes Refusal refuse that command; an entry of another form is an error.
func NewTable(deny []string) (*Table, error) {
	t := &Table{byName: make(map[string]*Command)}
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
			c = t.add(name)
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
	c := &Command{ID: len(t.Names), Name: name, traits: traits[name], forbidden: forbiddenText("the command " + name)}
	t.byName[name] = c
	t.Names = append(t.Names, name)
	return c
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

// Traits returns the traits of the command with this subcommand, which must be complete or nil. hot
func (c *Command) Traits(sub []byte) Trait {
	t := c.traits
	if t&uncountIf != 0 && beginsWithWord(sub, "REPLY") {
		t |= Uncounted
	}
	if t&databaselessIf != 0 && (IsWord(sub, "KILL") || IsWord(sub, "STATS")) {
		t |= Databaseless
	}
	return t
}

// MentionsBlock reports whether at least one of the backends reads an argument as BLOCK: then a command with the trait
// MayBlock may wait for other clients. A key of that name does no harm: the command is merely taken for one that blocks.
func MentionsBlock(args [][]byte) bool {
	return slices.ContainsFunc(args, func(a []byte) bool { return IsWord(cWord(a), "BLOCK") })
}
