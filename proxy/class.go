package proxy

import (
	"bytes"
	"slices"
)

// commandClass says which backend connection a command may take in mode shared. commands.txt has each command's.
type commandClass uint8

const (
	classUnknown        commandClass = iota // like life, unless it is answered by an error
	classQuiet                              // a lane: audited, always one reply, no state, no error that quotes an argument
	classPlain                              // the same, but an error may quote an argument: a lane unless one holds CR or LF
	classUnbounded                          // quiet, but its work has no bound in its arguments: a lane among its like
	classUnboundedPlain                     // both
	classOwn                                // the session's own connection, on which it leaves no state
	classScript                             // the same where scripts.harmless says so, else life
	classState                              // changes what is remembered of a session: database, protocol, name, READONLY
	classSticky                             // opens or ends a transaction
	classLife                               // the session's own connection from here on
)

// classNames are the words of commands.txt.
var classNames = []string{
	classUnknown: "unknown", classQuiet: "quiet", classPlain: "plain", classUnbounded: "unbounded", classUnboundedPlain: "unbounded-plain",
	classOwn: "own", classScript: "script", classState: "state", classSticky: "sticky", classLife: "life",
}

func (c commandClass) String() string { return classNames[c] }

// classNamed reads a word of commands.txt, which TestEveryCommandHasAClass checks.
func classNamed(word string) commandClass {
	return commandClass(max(0, slices.Index(classNames, word)))
}

// classOf is the class of the command with its second argument, which may be nil. The command's name must be no more
// than the name: what Dragonfly makes of "ACL WHOAMI" as one word is unknown. hot
func (c *command) classOf(sub []byte) commandClass {
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
