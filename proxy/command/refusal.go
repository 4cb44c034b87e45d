package command

import (
	"bytes"

	"dragontls/proxy/resp"
)

// Refusals that name no command.
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

// forbiddenText is the refusal of a command, or of one of its subcommands, that the users file does not let pass.
func forbiddenText(what string) []byte {
	return resp.AppendError(nil, "NOPERM dragontls: "+what+" is refused for this client (USERS_FILE)")
}

// Refusal returns the refusal of a command that is denied, or that holds a NUL in its name, or in its subcommand where that
// decides, and nil for any other command. exact is what Lookup says of name. hot
func (c *Command) Refusal(name, sub []byte, exact bool) []byte {
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

// RefusalOfBig returns the refusal of a command that is too big to be held and that neither Refusal nor the rules refuse; nil: it
// may pass. name and sub are nil where they are not complete within the part that is held. A command whose name, or whose
// subcommand where that decides, is not complete is refused: it cannot be judged, and Redis reads only what comes before a NUL
// in it. r may be nil.
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

// Inspect returns the refusal of an AUTH, HELLO or ACL for its arguments, the name among them; nil: it may pass. rest is what Lookup
// found behind the name. ownUser says that dragontls has authenticated the connection: whom it acts as is not the client's to
// change.
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

// inspectHello looks for options in every place: at worst it refuses a name or a password that reads like one.
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
