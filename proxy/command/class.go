package command

import (
	"bytes"
	"slices"
	"strings"
)

// Class says which backend connection a command may take in mode shared. commands.txt has the class of each command.
type Class uint8

const (
	Unknown        Class = iota // like Life, unless it is answered by an error
	Quiet                       // a lane: audited, always one reply, no state, and no error quotes an argument
	Plain                       // like Quiet, but an error may quote an argument: a lane unless an argument holds CR or LF
	Unbounded                   // like Quiet, but its arguments do not bound its work: an unbounded lane
	UnboundedPlain              // both Plain and Unbounded
	Own                         // the session's own connection, on which it leaves no state
	Script                      // like Own if the script is harmless, otherwise like Life, but for an EVALSHA that finds no script
	State                       // changes what is remembered of a session: database, protocol, name, READONLY
	Sticky                      // opens or ends a transaction, or watches keys: a lane takes only whole transactions
	Life                        // the session's own connection, which it keeps from then on
)

// LeavesNoState reports whether a command of this class leaves its connection as it was.
func (c Class) LeavesNoState() bool { return Quiet <= c && c <= Own }

// classNames are the words for the classes in commands.txt.
var classNames = []string{
	Unknown: "unknown", Quiet: "quiet", Plain: "plain", Unbounded: "unbounded", UnboundedPlain: "unbounded-plain",
	Own: "own", Script: "script", State: "state", Sticky: "sticky", Life: "life",
}

// String returns the word for the class in commands.txt.
func (c Class) String() string { return classNames[c] }

// classNamed returns the class for a word of commands.txt, and Unknown for any other. TestClassOfEveryLineIsAWord checks
// that there is no other.
func classNamed(word string) Class {
	return Class(max(0, slices.Index(classNames, word)))
}

var (
	byteCR = []byte{'\r'}
	byteLF = []byte{'\n'}
)

// holdsLineBreak reports whether an argument of a canonical frame, which has args arguments, holds a CR or LF: then the
// frame has more of them than its headers and bulks end with. hot
func holdsLineBreak(frame []byte, args int) bool {
	ends := 1 + 2*args
	return bytes.Count(frame, byteLF) != ends || bytes.Count(frame, byteCR) != ends
}

// bound tells how the arguments of a Quiet command bound its work. If they allow a lot of work, the command is classed as
// Unbounded. With the zero value they never do.
type bound struct {
	args   int  // more arguments than this, the name included, are much work; 0: any number of them is little
	number int  // place of an argument that is a number and means much work if it is long; 0: there is none
	path   bool // an argument is a JSON path, which visits all of a document if it holds ".."
}

const (
	// manyArgs is a number of arguments with which a command costs the backend some hundred times what it does with one key.
	manyArgs = 64
	// longNumber is how many digits make a count or an offset much work: up to 99,999 elements, or bytes to fill, are little.
	longNumber = 6
)

// bounds lists the bounds of the commands that have one, but for JSON paths (boundOf).
var bounds = map[string]bound{
	"MGET": {args: manyArgs}, "MSET": {args: 2 * manyArgs}, "MSETNX": {args: 2 * manyArgs}, "DEL": {args: manyArgs}, "UNLINK": {args: manyArgs},
	"EXISTS": {args: manyArgs}, "TOUCH": {args: manyArgs}, "PFCOUNT": {args: 2}, "PFMERGE": {args: 2},
	"SETRANGE": {number: 2}, "SETBIT": {number: 2}, "SPOP": {number: 2}, "LPOP": {number: 2}, "RPOP": {number: 2},
	"LMPOP": {args: 4}, "ZMPOP": {args: 4}, // exceeded by a COUNT, or by more keys than one
	"ZPOPMIN": {number: 2}, "ZPOPMAX": {number: 2}, "LSET": {number: 2}, "LINDEX": {number: 2},
}

// boundOf returns the bound of the command with this name.
func boundOf(name string) bound {
	b := bounds[name]
	b.path = strings.HasPrefix(name, "JSON.")
	if name == "JSON.MGET" || name == "JSON.MSET" {
		b.args = manyArgs
	}
	return b
}

// exceeded reports whether a command may be much work. frame is its canonical frame, of args arguments. hot
func (b *bound) exceeded(frame []byte, args int) bool {
	switch {
	case b.args > 0 && args > b.args:
		return true
	case b.number > 0 && len(argument(frame, b.number)) >= longNumber:
		return true
	}
	return b.path && bytes.Contains(frame, []byte(".."))
}

// argument returns the argument at a place in a canonical frame, or nil if there is none. The name is at place 0.
func argument(frame []byte, place int) []byte {
	at := bytes.IndexByte(frame, '\n') + 1
	for ; at > 0 && at < len(frame); place-- {
		n, i := 0, at+1 // after the $
		for ; i < len(frame) && frame[i] != '\r'; i++ {
			n = 10*n + int(frame[i]-'0')
		}
		begin := i + 2
		if begin+n > len(frame) {
			return nil
		}
		if place == 0 {
			return frame[begin : begin+n]
		}
		at = begin + n + 2
	}
	return nil
}
