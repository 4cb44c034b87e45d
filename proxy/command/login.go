package command

import (
	"bytes"
	"slices"

	"dragontls/proxy/resp"
)

// defaultUser is whom an AUTH with nothing but a password authenticates as.
const defaultUser = "default"

// The errors with which both backends answer an AUTH that they do not read any further.
var (
	textAuthArity  = resp.AppendError(nil, "ERR wrong number of arguments for 'auth' command")
	textAuthSyntax = resp.AppendError(nil, "ERR syntax error")
)

// Login is what an AUTH, or a HELLO with AUTH, asks for. Its slices are those of the arguments.
type Login struct {
	User, Password []byte
	Fault          []byte   // with a wrong number of arguments of AUTH: the backend's error. The rest is empty then
	Rest           [][]byte // the HELLO without its AUTH; nil if the command is AUTH
	Unread         bool     // the backend refuses this HELLO for its protocol, before it looks at the password
}

// Login reads the login that a command with these arguments, the name included, asks for. It returns false if the command
// asks for none, and also for a HELLO that is malformed, has several logins or names the connection AUTH: Inspect decides
// about those.
func (c *Command) Login(args [][]byte) (l Login, ok bool) {
	switch {
	case c.Name == "HELLO":
		return helloLogin(args)
	case c.Name != "AUTH":
		return Login{}, false
	}
	switch len(args) {
	case 1:
		return Login{Fault: textAuthArity}, true
	case 2:
		return Login{User: []byte(defaultUser), Password: args[1]}, true
	case 3:
		return Login{User: args[1], Password: args[2]}, true
	}
	return Login{Fault: textAuthSyntax}, true
}

// helloLogin reads the options of HELLO as both backends do, from left to right. Of several logins the last one counts to
// Dragonfly and newer versions of Redis, while Redis 7.0 wants each to be right.
func helloLogin(args [][]byte) (l Login, ok bool) {
	if len(args) < 5 || IsWord(cWord(args[1]), "AUTH") {
		return Login{}, false
	}
	l.Rest = slices.Clone(args[:2])
	for i := 2; i < len(args); {
		switch more := len(args) - i - 1; {
		case more >= 2 && !ok && IsWord(args[i], "AUTH"):
			l.User, l.Password, ok = args[i+1], args[i+2], true
			i += 3
		case more >= 1 && IsWord(args[i], "SETNAME") && !IsWord(cWord(args[i+1]), "AUTH"):
			l.Rest = append(l.Rest, args[i], args[i+1])
			i += 2
		default:
			return Login{}, false
		}
	}
	if !ok {
		return Login{}, false
	}
	l.Unread = !mayBeProtocol(args[1])
	return l, true
}

// mayBeProtocol reports whether one of the backends may read b as the number of a protocol that it speaks. Redis takes
// nothing but the digit, Dragonfly's parser of numbers also takes blanks, a sign and zeros.
func mayBeProtocol(b []byte) bool {
	b = bytes.TrimLeft(bytes.Trim(b, blanks), "+0")
	return string(b) == "2" || string(b) == "3"
}
