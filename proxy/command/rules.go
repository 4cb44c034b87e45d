package command

import (
	"slices"
	"sync/atomic"
)

// Rules decide which commands a client may use. Sessions share them; they are safe for concurrent use. They do not see the
// commands that a script runs: for those only the rights of the backend's user count. A client that may use all commands has
// no Rules: only Same and RefusalOfBig accept nil.
type Rules struct {
	options RuleOptions // as given
	dryRun  bool

	rulings []ruling          // by Command.ID, for the commands of the catalogue
	custom  map[string]ruling // by name, for other commands that an entry names
	unknown ruling            // for all other commands
	except  map[string][]byte // by NAME|SUB, for subcommands that are not ruled like NAME: the refusal, or nil if it passes

	noted []atomic.Uint32 // a bit for each command of the catalogue for which FirstTime was called, and one for all others
}

// ruling is how the rules decide about a command.
type ruling uint8

const (
	passes     ruling = iota
	refused           // with any subcommand
	passesBut         // passes unless except refuses the subcommand
	refusedBut        // refused unless except lets the subcommand pass
)

const maxRuledName = maxName + len("|") + maxName

// DryRun reports whether the caller must let pass what Judge refuses, and only count and log it.
func (r *Rules) DryRun() bool { return r.dryRun }

// Judge returns nil for a command that passes, and the refusal for any other. name is the name that was given to Lookup, sub
// the second argument or nil. hot
func (r *Rules) Judge(cmd *Command, name, sub []byte) []byte {
	of := r.ruling(cmd, name)
	switch of {
	case passes:
		return nil
	case refused:
		return cmd.forbidden
	}
	if holdsNUL(sub) {
		return textSub
	}
	text, found := r.ofSub(name, sub)
	switch {
	case found:
		return text
	case of == passesBut:
		return nil
	}
	return cmd.forbidden
}

// ruling returns the ruling of a command, which its subcommand may still change. hot
func (r *Rules) ruling(cmd *Command, name []byte) ruling {
	if cmd.ID < len(r.rulings) {
		return r.rulings[cmd.ID]
	}
	if len(r.custom) > 0 {
		return r.ofCustom(name)
	}
	return r.unknown
}

// asksSub reports whether the rules need the subcommand to decide about the command. r may be nil.
func (r *Rules) asksSub(cmd *Command, name []byte) bool {
	if r == nil {
		return false
	}
	of := r.ruling(cmd, name)
	return of == passesBut || of == refusedBut
}

// ofCustom returns the ruling of a command that is not in the catalogue.
func (r *Rules) ofCustom(name []byte) ruling {
	var upper [maxName]byte
	if word, ok := appendWord(upper[:0], name); ok {
		if of, found := r.custom[string(word)]; found {
			return of
		}
	}
	return r.unknown
}

// ofSub looks a subcommand up in except. If it is found there, text is its refusal, or nil if it passes.
func (r *Rules) ofSub(name, sub []byte) (text []byte, found bool) {
	var upper [maxRuledName]byte
	key, ok := appendWord(upper[:0], name)
	if !ok {
		return nil, false
	}
	if key, ok = appendWord(append(key, '|'), sub); !ok {
		return nil, false
	}
	text, found = r.except[string(key)]
	return text, found
}

// FirstTime reports whether it is called for the first time for this command. All commands that commands.txt does not list
// count as one.
func (r *Rules) FirstTime(cmd *Command) bool {
	id := min(cmd.ID, len(r.rulings))
	bit := uint32(1) << (id % 32)
	word := &r.noted[id/32]
	return word.Load()&bit == 0 && word.Or(bit)&bit == 0
}

// Same reports whether r and o have the same entries and dry run; either may be nil.
func (r *Rules) Same(o *Rules) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.dryRun == o.dryRun && slices.Equal(r.options.Allow, o.options.Allow) && slices.Equal(r.options.Deny, o.options.Deny)
}
