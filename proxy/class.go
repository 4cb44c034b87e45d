package proxy

import (
	"bytes"
	"slices"

	"dragontls/proxy/resp"
)

// commandClass says which backend connection a command may take in mode shared. commands.txt has each command's. leavesNoState
// counts on the order.
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

// leavesNoState reports whether a command of this class leaves the connection as it was.
func (c commandClass) leavesNoState() bool { return classQuiet <= c && c <= classOwn }

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

// classify returns the class of a command that is held as a whole: frame is its canonical frame, of args arguments, and sub the
// second of them, or nil. Lines and bounds are looked at already: the result is neither classPlain nor classUnboundedPlain. hot
func (t *commandTable) classify(c *command, sub, frame []byte, args int) commandClass {
	class := c.classOf(sub)
	switch class {
	case classQuiet:
		if c.bound.exceeded(frame, args) {
			return classUnbounded
		}
	case classPlain, classUnboundedPlain:
		switch {
		case holdsLineBreak(frame, args):
			return classOwn
		case class == classPlain:
			return classQuiet
		}
		return classUnbounded
	case classScript:
		if t.scripts.harmless(resp.SplitArgs(frame, nil)) {
			return classOwn
		}
		return classScript
	}
	if c.name == "SCRIPT" && args == 3 && isWord(sub, "LOAD") {
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
