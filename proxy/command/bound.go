package command

import (
	"bytes"
	"strings"
)

// bound says which arguments of a quiet command bound its work. Where they allow a great deal of it, the command rides among
// those whose work has no bound. The zero value: the arguments always bound it to little.
type bound struct {
	args   int  // more of them are much work; 0: there is no limit
	number int  // the place of a number that is much work when it is long; 0: there is none
	path   bool // a JSON path with ".." visits all of a document
}

const (
	// manyArgs: so many keys cost a backend some hundred times what one does.
	manyArgs = 64
	// longNumber has more digits than a count or an offset that is little work: 99,999 elements, or bytes to be filled.
	longNumber = 6
)

// bounds are those of the commands that have one.
var bounds = map[string]bound{
	"MGET": {args: manyArgs}, "MSET": {args: 2 * manyArgs}, "MSETNX": {args: 2 * manyArgs}, "DEL": {args: manyArgs}, "UNLINK": {args: manyArgs},
	"EXISTS": {args: manyArgs}, "TOUCH": {args: manyArgs}, "PFCOUNT": {args: 2}, "PFMERGE": {args: 2},
	"SETRANGE": {number: 2}, "SETBIT": {number: 2}, "SPOP": {number: 2}, "LPOP": {number: 2}, "RPOP": {number: 2},
	"LMPOP": {args: 4}, "ZMPOP": {args: 4}, // with a COUNT, or more keys than one
	"ZPOPMIN": {number: 2}, "ZPOPMAX": {number: 2}, "LSET": {number: 2}, "LINDEX": {number: 2},
}

// boundOf returns the bound of the command with a name.
func boundOf(name string) bound {
	b := bounds[name]
	b.path = strings.HasPrefix(name, "JSON.")
	if name == "JSON.MGET" || name == "JSON.MSET" {
		b.args = manyArgs
	}
	return b
}

// exceeded reports whether a canonical frame of so many arguments may be much work. hot
func (b *bound) exceeded(frame []byte, args int) bool {
	switch {
	case b.args > 0 && args > b.args:
		return true
	case b.number > 0 && len(argument(frame, b.number)) >= longNumber:
		return true
	}
	return b.path && bytes.Contains(frame, []byte(".."))
}

// argument returns the argument of a canonical frame at a place, the name's being 0; nil: there is none.
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
