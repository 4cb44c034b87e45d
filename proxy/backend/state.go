package backend

import (
	"strconv"
	"strings"

	"dragontls/proxy/resp"
)

// State is what a session has set on its connection: a connection that takes the place of another is given it, and it decides which lanes
// the session may use. The zero value is that of a new connection.
type State struct {
	Database       int
	RESP3          bool
	ReadOnly       bool // READONLY of a Redis cluster: a replica serves reads
	Named          bool // the client has set Name, which may be empty
	Name           string
	LibraryName    string
	LibraryVersion string
}

// replay appends the commands that give a fresh connection this state, and what judges their replies.
func (st *State) replay(out []byte, want []question) ([]byte, []question) {
	add := func(judge func(*resp.Replies) error, args ...string) {
		out = resp.AppendCommand(out, args...)
		want = append(want, question{strings.Join(args[:min(len(args), 2)], " "), judge}) // without names
	}
	if st.RESP3 {
		add(isHello, "HELLO", "3")
	}
	if st.Database != 0 {
		add(isSet, "SELECT", strconv.Itoa(st.Database))
	}
	if st.ReadOnly {
		add(isSet, "READONLY")
	}
	if st.Named {
		add(isOKOrError, "CLIENT", "SETNAME", st.Name)
	}
	if st.LibraryName != "" {
		add(isOKOrError, "CLIENT", "SETINFO", "LIB-NAME", st.LibraryName)
	}
	if st.LibraryVersion != "" {
		add(isOKOrError, "CLIENT", "SETINFO", "LIB-VER", st.LibraryVersion)
	}
	return out, want
}
