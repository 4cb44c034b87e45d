package proxy

import (
	"bytes"
	"fmt"
	"strings"

	"dragontls/proxy/resp"
)

// trait is what a session has to know about a command before it passes it on.
type trait uint16

const (
	blocking   trait = 1 << iota // may wait for other clients
	blocksIf                     // ... where an argument says BLOCK
	uncounted                    // from here on replies cannot be counted
	uncountIf                    // ... where the subcommand is REPLY
	opensMulti                   // MULTI
	endsMulti                    // EXEC, DISCARD
	inspected                    // all its arguments are looked at: it must be held as a whole
	resets                       // RESET
	quits                        // QUIT
)

var traits = map[string]trait{
	"BLPOP": blocking, "BRPOP": blocking, "BLMOVE": blocking, "BRPOPLPUSH": blocking, "BLMPOP": blocking,
	"BZPOPMIN": blocking, "BZPOPMAX": blocking, "BZMPOP": blocking, "WAIT": blocking, "WAITAOF": blocking,
	"XREAD": blocksIf, "XREADGROUP": blocksIf,
	"SUBSCRIBE": uncounted, "PSUBSCRIBE": uncounted, "SSUBSCRIBE": uncounted,
	"UNSUBSCRIBE": uncounted, "PUNSUBSCRIBE": uncounted, "SUNSUBSCRIBE": uncounted, "MONITOR": uncounted,
	"SYNC": uncounted, "PSYNC": uncounted, "REPLCONF": uncounted, "DFLY": uncounted, "DFLYMIGRATE": uncounted,
	"CLIENT": uncountIf,
	"MULTI":  opensMulti, "EXEC": endsMulti, "DISCARD": endsMulti,
	"AUTH": inspected, "HELLO": inspected, "ACL": inspected,
	"RESET": resets, "QUIT": quits,
}

// command is one entry of the table; never modified after newCommandTable.
type command struct {
	id        int // index of its counters
	name      string
	traits    trait
	class     commandClass
	rereads   bool                   // it only reads: asked again, it is answered as if it had come later
	known     map[string]*subcommand // with a class of their own
	forbidden []byte                 // the reply where the rules of a client refuse it
	denied    []byte                 // the reply when DENY_COMMANDS names it; nil: allowed
	subs      map[string][]byte      // the same by subcommand
}

// commandTable knows commands by name. What it does not know is other.
type commandTable struct {
	byName map[string]*command
	names  []string // by id
	other  *command
}

const (
	maxName = 64 // longer names are unknown
	blanks  = " \t\r\n\x00\v\f"
)

func newCommandTable(deny []string) (*commandTable, error) {
	t := &commandTable{byName: make(map[string]*command)}
	all := commandCatalogue()
	for i, n := range all.names {
		c := t.add(n)
		c.class, c.known, c.rereads = all.classes[i], all.subs[n], all.onlyReads(n)
	}
	t.other = &command{id: len(t.names), name: "other", forbidden: forbiddenText("this command")}
	t.names = append(t.names, "other")
	for _, d := range deny {
		name, sub, hasSub := strings.Cut(strings.ToUpper(strings.TrimSpace(d)), "|")
		if name == "" || len(name) > maxName || hasSub && sub == "" {
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
			c.subs = make(map[string][]byte)
		}
		c.subs[sub] = resp.AppendError(nil, "NOPERM dragontls: the command "+name+" "+sub+" is refused here (DENY_COMMANDS)")
	}
	return t, nil
}

func (t *commandTable) add(name string) *command {
	c := &command{id: len(t.names), name: name, traits: traits[name], forbidden: forbiddenText("the command " + name)}
	t.byName[name] = c
	t.names = append(t.names, name)
	return c
}

// lookup finds a command in any case. A name that holds a blank (Dragonfly takes "ACL WHOAMI" as one name) is judged
// by its first word; rest is what follows it. hot
func (t *commandTable) lookup(name []byte) (c *command, rest []byte) {
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
			return t.other, nil
		}
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper[n] = b
	}
	if c := t.byName[string(upper[:n])]; c != nil {
		return c, rest
	}
	return t.other, rest
}

// refusal is the reply to a denied command, nil when it is allowed.
func (c *command) refusal(sub []byte) []byte {
	if c.denied != nil || c.subs == nil {
		return c.denied
	}
	words := bytes.Fields(cWord(sub[:min(len(sub), 2*maxName)]))
	if len(words) == 0 {
		return nil
	}
	return c.subs[strings.ToUpper(string(words[0]))]
}

// cWord is what Redis takes for a word: it compares C strings, which end at a NUL. hot
func cWord(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

var (
	textName     = resp.AppendError(nil, "ERR dragontls: the name of a command must not contain NUL")
	textOwnAuth  = resp.AppendError(nil, "NOPERM dragontls: the proxy has authenticated this connection, AUTH is refused")
	textUserName = resp.AppendError(nil, "ERR dragontls: a user name must not contain CR or LF")
	textTooLong  = resp.AppendError(nil, "ERR dragontls: AUTH, HELLO and ACL commands above 64 KiB are refused")
	textDoomed   = resp.AppendError(nil, "ERR dragontls: refused inside a transaction in which a command was refused before")

	textRulesChanged = resp.AppendError(nil, "NOPERM dragontls: the rules of this client changed inside a transaction, which was not run")

	textExecAbort    = []byte("-EXECABORT Transaction discarded because of previous errors\r\n")
	textUnavailable  = resp.AppendError(nil, "LOADING dragontls: backend unavailable, the command was not sent")
	textBackendAuth  = resp.AppendError(nil, "ERR dragontls: the backend refused the proxy's credentials, see the proxy's log")
	textBackendOpen  = resp.AppendError(nil, "ERR dragontls: the backend lets connections in that did not authenticate, so it is not used")
	textBackendState = resp.AppendError(nil, "ERR dragontls: the backend refuses the database, protocol or name that this session had, so the session ends")
	textOK           = resp.AppendOK(nil)
	textInternal     = resp.AppendError(nil, "ERR dragontls: internal error, this connection is closed")
)

// inspect judges the arguments of AUTH, HELLO and ACL; nil passes them on. ownUser: dragontls has authenticated
// the connection, and whom it acts as is not the client's to change.
func (c *command) inspect(args [][]byte, rest []byte, ownUser bool) []byte {
	switch c.name {
	case "AUTH":
		if ownUser {
			return textOwnAuth
		}
		if len(args) > 2 && hasLineBreak(args[1]) {
			return textUserName
		}
	case "HELLO":
		for i, a := range args {
			if i == 0 || !bytes.EqualFold(cWord(a), wordAuth) {
				continue
			}
			if ownUser {
				return textOwnAuth
			}
			if i+1 < len(args) && hasLineBreak(args[i+1]) {
				return textUserName
			}
		}
		if ownUser && len(rest) > 0 {
			return textOwnAuth // "HELLO 3 AUTH .." as one word
		}
	case "ACL":
		for _, a := range args {
			if hasLineBreak(a) {
				return textUserName
			}
		}
	}
	return nil
}

var (
	wordAuth  = []byte("AUTH")
	wordBlock = []byte("BLOCK")
	wordReply = []byte("REPLY")
)

func hasLineBreak(b []byte) bool { return bytes.ContainsAny(b, "\r\n") }

func contains(args [][]byte, word []byte) bool {
	for _, a := range args {
		if bytes.EqualFold(cWord(a), word) {
			return true
		}
	}
	return false
}
