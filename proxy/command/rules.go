package command

import (
	"slices"
	"sync/atomic"
)

// Rules say which commands a client may use. They are shared by sessions and safe for concurrent use. They do not
// see what a script runs: there only the rights of the backend's user count. Where all commands pass there are no Rules: only
// Same and RefusalOfBig take a nil.
type Rules struct {
	options RuleOptions // as given
	dryRun  bool

	rulings []ruling          // by Command.ID, for those of the catalogue
	custom  map[string]ruling // by name, for others that an entry names
	unknown ruling            // for all the rest
	except  map[string][]byte // NAME|SUB, where the ruling is not that of NAME; nil: passes, else the refusal

	unlisted []string        // see Unlisted
	noted    []atomic.Uint32 // a bit for each command that was logged; the last is for those beyond the catalogue
}

// ruling is what becomes of a command.
type ruling uint8

const (
	passes     ruling = iota
	refused           // whatever its subcommand
	passesBut         // unless except refuses the subcommand
	refusedBut        // unless except lets the subcommand pass
)

const maxRuledName = maxName + len("|") + maxName

// Unlisted returns the names of entries that are no command of Dragonfly v1.40.1 or Redis 7.0.15: commands of a
// module or of a later version, or a slip of the pen.
func (r *Rules) Unlisted() []string { return r.unlisted }

// DryRun reports whether what Judge refuses is to be counted and logged only, and passes.
func (r *Rules) DryRun() bool { return r.dryRun }

// Judge returns nil for a command that passes, and the refusal otherwise. name is as Lookup was given it; sub is the subcommand,
// if it has one. hot
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

// ruling is that of a command before its subcommand is looked at. hot
func (r *Rules) ruling(cmd *Command, name []byte) ruling {
	if cmd.ID < len(r.rulings) {
		return r.rulings[cmd.ID]
	}
	if len(r.custom) > 0 {
		return r.ofCustom(name)
	}
	return r.unknown
}

// asksSub reports whether the subcommand decides what becomes of the command. r may be nil.
func (r *Rules) asksSub(cmd *Command, name []byte) bool {
	if r == nil {
		return false
	}
	of := r.ruling(cmd, name)
	return of == passesBut || of == refusedBut
}

func (r *Rules) ofCustom(name []byte) ruling {
	var upper [maxName]byte
	if word, ok := appendWord(upper[:0], name); ok {
		if of, found := r.custom[string(word)]; found {
			return of
		}
	}
	return r.unknown
}

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

// FirstTime reports whether it is called for the command for the first time. All commands that commands.txt does not have count as one.
func (r *Rules) FirstTime(cmd *Command) bool {
	id := min(cmd.ID, len(r.rulings))
	bit := uint32(1) << (id % 32)
	word := &r.noted[id/32]
	return word.Load()&bit == 0 && word.Or(bit)&bit == 0
}

// Same reports whether both say the same; either may be nil.
func (r *Rules) Same(o *Rules) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.dryRun == o.dryRun && slices.Equal(r.options.Allow, o.options.Allow) && slices.Equal(r.options.Deny, o.options.Deny)
}
