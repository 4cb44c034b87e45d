// Package command knows commands: by name, with their traits, their class and the connections that they may take, and which of
// them the deny list and the rules of a client refuse. It decides what needs no more than the bytes of a command; what depends
// on the state of a session is decided in package proxy.
package command

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"dragontls/proxy/resp"
)

// Trait is a set of bits: what a session has to know about a command before it passes it on.
type Trait uint16

const (
	Blocking   Trait = 1 << iota // may wait for other clients
	MayBlock                     // blocks if MentionsBlock says so
	Uncounted                    // from here on replies cannot be counted
	uncountIf                    // ... where the subcommand is REPLY
	OpensMulti                   // MULTI
	EndsMulti                    // EXEC, DISCARD
	Inspected                    // Inspect has to see all its arguments: it must be held as a whole
	Resets                       // RESET
	Quits                        // QUIT
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
}

// Command is one entry of a Table. Nothing modifies it after NewTable.
type Command struct {
	ID        int    // its place in Table.Names
	Name      string // in upper case; "other" for all commands that the table does not know
	OnlyReads bool   // sent again, it is answered as if it had come later
	traits    Trait
	class     Class
	known     map[string]*subcommand // with a class of their own
	bound     bound
	hasSubs   bool              // its second word decides: it is in known or in subs
	forbidden []byte            // the reply where the rules of a client refuse it
	denied    []byte            // the reply when DENY_COMMANDS names it; nil: allowed
	subs      map[string][]byte // the same by subcommand
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

// NewTable returns the table of all commands of Dragonfly and Redis, and of those that deny names. Each entry of deny is
// NAME or NAME|SUBCOMMAND in any case, and makes Refusal refuse that command; an entry of another form is an error.
func NewTable(deny []string) (*Table, error) {
	t := &Table{byName: make(map[string]*Command)}
	all := theCatalogue()
	for i, n := range all.names {
		c := t.add(n)
		c.class, c.known, c.OnlyReads, c.bound = all.classes[i], all.subs[n], all.onlyReads(n), boundOf(n)
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
		text := resp.AppendError(nil, "NOPERM dragontls: the command "+name+" is refused here (DENY_COMMANDS)")
		if !hasSub {
			c.denied = text
			continue
		}
		if c.subs == nil {
			c.subs, c.hasSubs = make(map[string][]byte), true
		}
		c.subs[sub] = resp.AppendError(nil, "NOPERM dragontls: the command "+name+" "+sub+" is refused here (DENY_COMMANDS)")
	}
	return t, nil
}

func (t *Table) add(name string) *Command {
	c := &Command{ID: len(t.Names), Name: name, traits: traits[name], forbidden: forbiddenText("the command " + name)}
	t.byName[name] = c
	t.Names = append(t.Names, name)
	return c
}

// Lookup finds a command by its name in any case. A name that holds a blank (Dragonfly takes "ACL WHOAMI" as one name) is judged
// by its first word; rest is what follows it, and exact is false, as it is for a command that is not known. hot
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

// Traits returns the traits of the command with its subcommand, which must be complete or nil. hot
func (c *Command) Traits(sub []byte) Trait {
	t := c.traits
	if t&uncountIf != 0 && beginsWithWord(sub, "REPLY") {
		t |= Uncounted
	}
	return t
}

// Refusal returns the reply to a command that is denied, or whose name or subcommand holds a NUL, and nil for any other
// command. exact is what Lookup says of name. hot
func (c *Command) Refusal(name, sub []byte, exact bool) []byte {
	switch {
	case !exact && holdsNUL(name):
		return textName
	case c.hasSubs && holdsNUL(sub):
		return textSub
	}
	if c.denied != nil || c.subs == nil {
		return c.denied
	}
	var upper [maxName]byte
	word, ok := appendWord(upper[:0], sub)
	if !ok {
		return nil
	}
	return c.subs[string(word)]
}

// RefusalOfBig returns the refusal of a command that is too big to be held and that neither Refusal nor the rules refuse; nil: it
// may pass. name and sub are nil where they are not complete within the part that is held. A command whose name, or whose
// subcommand where that decides, is not complete is refused: it cannot be judged, and Redis reads only what comes before a NUL
// in it. r may be nil.
func (c *Command) RefusalOfBig(name, sub []byte, r *Rules) []byte {
	switch {
	case name == nil:
		return textLongName
	case c.traits&Inspected != 0:
		return textTooLong
	case sub == nil && (c.hasSubs || r.asksSub(c, name)):
		return textLongSub
	}
	return nil
}

var (
	textOwnAuth  = resp.AppendError(nil, "NOPERM dragontls: the proxy has authenticated this connection, AUTH is refused")
	textUserName = resp.AppendError(nil, "ERR dragontls: a user name must not contain CR or LF")
	textTooLong  = resp.AppendError(nil, "ERR dragontls: AUTH, HELLO and ACL commands above 64 KiB are refused")
)

// Inspect returns the refusal of an AUTH, HELLO or ACL for its arguments, the name among them; nil: it may pass. rest is what Lookup
// found behind the name. ownUser says that dragontls has authenticated the connection: whom it acts as is not the client's to
// change.
func (c *Command) Inspect(args [][]byte, rest []byte, ownUser bool) []byte {
	switch c.Name {
	case "AUTH":
		if ownUser {
			return textOwnAuth
		}
		if len(args) > 2 && hasLineBreak(args[1]) {
			return textUserName
		}
	case "HELLO":
		return inspectHello(args, rest, ownUser)
	case "ACL":
		for _, a := range args {
			if hasLineBreak(a) {
				return textUserName
			}
		}
	}
	return nil
}

// inspectHello looks for options in every place: at worst it refuses a name or a password that reads like one.
func inspectHello(args [][]byte, rest []byte, ownUser bool) []byte {
	for i, a := range args {
		word := cWord(a)
		isAuth := IsWord(word, "AUTH")
		switch {
		case i == 0 || !isAuth && !IsWord(word, "SETNAME"):
		case isAuth && ownUser:
			return textOwnAuth
		case len(word) < len(a):
			return textOption
		case isAuth && i+1 < len(args) && hasLineBreak(args[i+1]):
			return textUserName
		}
	}
	if ownUser && len(rest) > 0 {
		return textOwnAuth // "HELLO 3 AUTH .." as one word
	}
	return nil
}

func hasLineBreak(b []byte) bool { return bytes.ContainsAny(b, "\r\n") }

// MentionsBlock reports whether an argument is BLOCK to one backend at least: a command with the trait MayBlock blocks then. A key of that name does no harm: the command is
// then merely taken for one that blocks.
func MentionsBlock(args [][]byte) bool {
	return slices.ContainsFunc(args, func(a []byte) bool { return IsWord(cWord(a), "BLOCK") })
}
