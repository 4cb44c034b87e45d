package command

import "slices"

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

// traitsWith is Traits for a command whose subcommand matters.
func (c *Command) traitsWith(sub []byte) Trait {
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
