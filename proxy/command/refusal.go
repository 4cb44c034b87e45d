package command

import (
	"bytes"

	"dragontls/proxy/resp"
)

// The refusals that do not name a command.
var (
	textOwnAuth  = resp.AppendError(nil, "NOPERM dragontls: the proxy has authenticated this connection, AUTH is refused")
	textUserName = resp.AppendError(nil, "ERR dragontls: a user name must not contain CR or LF")
	textTooLong  = resp.AppendError(nil, "ERR dragontls: AUTH, HELLO and ACL commands above 64 KiB are refused")

	textName     = resp.AppendError(nil, "ERR dragontls: the name of a command must not contain NUL")
	textSub      = resp.AppendError(nil, "ERR dragontls: a subcommand must not contain NUL")
	textOption   = resp.AppendError(nil, "ERR dragontls: an option of HELLO must not contain NUL")
	textLongName = resp.AppendError(nil, "ERR dragontls: the name of a command above 64 KiB is refused")
	textLongSub  = resp.AppendError(nil, "ERR dragontls: a subcommand above 64 KiB is refused")
)

// deniedText is the refusal of a command, or of one of its subcommands, that DENY_COMMANDS names.
func deniedText(what string) []byte {
	return resp.AppendError(nil, "NOPERM dragontls: the command "+what+" is refused here (DENY_COMMANDS)")
}

// forbiddenText is the refusal of a command, or of one of its subcommands, that the rules of the users file refuse.
func forbiddenText(what string) []byte {
	return resp.AppendError(nil, "NOPERM dragontls: "+what+" is refused for this client (USERS_FILE)")
}

// refusal is Refusal for a command whose subcommand matters, or whose name is not exact.
func (c *Command) refusal(name, sub []byte, exact bool) []byte {
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

// RefusalOfBig returns the refusal of a command that is too big to be held, or nil if it may pass. The caller must have
// asked Refusal and the rules before. name and sub are nil if they are not complete within the part that is held. A command
// with an incomplete name is refused, and one with an incomplete subcommand if that matters: it cannot be judged, since
// Redis reads only what comes before a NUL in it. r may be nil.
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

// Inspect returns the refusal of an AUTH, HELLO or ACL with these arguments, the name included, or nil if it may pass. rest
// is what Lookup found after the name. ownUser means that dragontls has authenticated the connection: then the client must
// not change the user as whom it acts.
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

// inspectHello looks for options in every place. At worst it refuses a HELLO whose user name, password or connection name
// reads like an option.
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
