package proxy

import (
	"bytes"
	"slices"

	"dragontls/proxy/resp"
)

// Class says which backend connection a command may take in mode shared. commands.txt has each command's. leavesNoState
// counts on the order.
type Class uint8

const (
	Unknown        Class = iota // like life, unless it is answered by an error
	Quiet                       // a lane: audited, always one reply, no state, no error that quotes an argument
	Plain                       // the same, but an error may quote an argument: a lane unless one holds CR or LF
	Unbounded                   // quiet, but its work has no bound in its arguments: a lane among its like
	UnboundedPlain              // both
	Own                         // the session's own connection, on which it leaves no state
	Script                      // the same where scripts.harmless says so, else life
	State                       // changes what is remembered of a session: database, protocol, name, READONLY
	Sticky                      // opens or ends a transaction
	Life                        // the session's own connection from here on
)

// leavesNoState reports whether a command of this class leaves the connection as it was.
func (c Class) LeavesNoState() bool { return Quiet <= c && c <= Own }

// classNames are the words of commands.txt.
var classNames = []string{
	Unknown: "unknown", Quiet: "quiet", Plain: "plain", Unbounded: "unbounded", UnboundedPlain: "unbounded-plain",
	Own: "own", Script: "script", State: "state", Sticky: "sticky", Life: "life",
}

func (c Class) String() string { return classNames[c] }

// classNamed reads a word of commands.txt, which TestEveryCommandHasAClass checks.
func classNamed(word string) Class {
	return Class(max(0, slices.Index(classNames, word)))
}

// classOf is the class of the command with its second argument, which may be nil. The command's name must be no more
// than the name: what Dragonfly makes of "ACL WHOAMI" as one word is unknown. hot
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

// classify returns the class of a command that is held as a whole: frame is its canonical frame, of args arguments, and sub the
// second of them, or nil. Lines and bounds are looked at already: the result is neither Plain nor UnboundedPlain. hot
func (t *Table) Classify(c *Command, sub, frame []byte, args int) Class {
	class := c.Class(sub)
	switch class {
	case Quiet:
		if c.bound.exceeded(frame, args) {
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
	if c.name == "SCRIPT" && args == 3 && IsWord(sub, "LOAD") {
		t.scripts.remember(resp.SplitArgs(frame, nil)[2])
	}
	return class
}

var (
	byteCR = []byte{'\r'}
	byteLF = []byte{'\n'}
)

// holdsLineBreak reports whether one of the args arguments of a canonical frame holds a CR or LF: there are more of
// them than end the frame's headers and bulks. hot
func holdsLineBreak(frame []byte, args int) bool {
	ends := 1 + 2*args
	return bytes.Count(frame, byteLF) != ends || bytes.Count(frame, byteCR) != ends
}
