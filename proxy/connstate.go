package proxy

import (
	"bytes"
	"strconv"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// connState is what a session has set on its connection: its own connection is given it when it is opened anew, and it
// decides which lanes the session may use.
type connState struct {
	db       int
	resp3    bool
	readonly bool // READONLY of a Redis cluster: a replica serves reads
	named    bool // by the client
	name     string
	libName  string
	libVer   string
}

// maxRemembered: a session with a longer name keeps its own connection.
const maxRemembered = 512

// noteKind says what a reply that is no error, or ends a transaction, tells of the session.
type noteKind uint8

const (
	noteError     noteKind = iota // only an error is of interest
	noteSelect                    // db
	noteHello                     // resp3, and name where named
	noteReadonly                  // readonly
	noteName                      // name
	noteLibName                   // name
	noteLibVer                    // name
	noteUnknown                   // the command is not known: the session keeps its own connection
	noteScript                    // the script is not known: the session keeps its own connection unless the backend does not know it either
	noteExec                      // an array, null or an error that discards the transaction ends what began before
	noteWholeExec                 // the same, where what began went in the same batch: nothing else tells of it
	noteDiscard                   // +OK does
	noteUnwatch                   // +OK does
	noteAsked                     // any reply ends an ASKING
)

// note waits in the queue for the reply that it is about.
type note struct {
	kind  noteKind
	set   connState // what of it kind names
	began uint64    // client.stickies when the command was sent
}

// noteOfState reads a command that changes the connection. nil: it is none that can be remembered.
func noteOfState(name string, args [][]byte) *note {
	for _, a := range args {
		if len(a) > maxRemembered {
			return nil
		}
	}
	switch name {
	case "SELECT":
		if len(args) != 2 {
			return &note{kind: noteError}
		}
		if db, err := strconv.Atoi(string(args[1])); err == nil && db >= 0 && strconv.Itoa(db) == string(args[1]) {
			return &note{kind: noteSelect, set: connState{db: db}}
		}
	case "READONLY", "READWRITE":
		if len(args) != 1 {
			return &note{kind: noteError}
		}
		return &note{kind: noteReadonly, set: connState{readonly: name == "READONLY"}}
	case "HELLO":
		return noteOfHello(args)
	case "CLIENT":
		switch {
		case len(args) == 3 && command.IsWord(args[1], "SETNAME"):
			return &note{kind: noteName, set: connState{name: string(args[2])}}
		case len(args) == 4 && command.IsWord(args[1], "SETINFO") && command.IsWord(args[2], "LIB-NAME"):
			return &note{kind: noteLibName, set: connState{name: string(args[3])}}
		case len(args) == 4 && command.IsWord(args[1], "SETINFO") && command.IsWord(args[2], "LIB-VER"):
			return &note{kind: noteLibVer, set: connState{name: string(args[3])}}
		}
	}
	return nil
}

func noteOfHello(args [][]byte) *note {
	n := &note{kind: noteHello}
	switch {
	case len(args) == 1:
		return &note{kind: noteError}
	case string(args[1]) == "3":
		n.set.resp3 = true
	case string(args[1]) != "2":
		return nil
	}
	switch rest := args[2:]; {
	case len(rest) == 0:
	case len(rest) == 2 && command.IsWord(rest[0], "SETNAME"):
		n.set.named, n.set.name = true, string(rest[1])
	default:
		return nil
	}
	return n
}

// noted acts on the reply to a command whose outcome the session has to know. The pump calls it.
func (s *session) noted(n *note, r *resp.Replies) {
	failed := r.Kind() == '-'
	ok := r.Kind() == '+' && string(r.Line()) == "OK"
	switch n.kind {
	case noteExec:
		s.endSticky(n, r.Kind() == '*' || r.Null() || failed && isExecAbort(r.Line()))
	case noteAsked:
		s.endSticky(n, true)
	case noteWholeExec:
		if !(r.Kind() == '*' || r.Null() || failed && isExecAbort(r.Line())) {
			s.keepOwn()
		}
	case noteDiscard, noteUnwatch:
		s.endSticky(n, ok)
	case noteUnknown:
		if !failed {
			s.keepOwn()
		}
	case noteScript:
		if !failed || !bytes.HasPrefix(r.Line(), []byte("NOSCRIPT")) {
			s.keepOwn()
		}
	case noteError:
	default:
		if !failed {
			s.remember(n)
		}
	}
	if failed && n.kind != noteAsked {
		// What an argument made of the reply cannot be known: nothing of that connection is used again.
		s.pump.mu.Lock()
		s.pump.dirty = true
		s.pump.mu.Unlock()
	}
}

// remember takes over what the backend has confirmed.
func (s *session) remember(n *note) {
	p := &s.pump
	p.mu.Lock()
	switch n.kind {
	case noteSelect:
		s.state.db = n.set.db
	case noteReadonly:
		s.state.readonly = n.set.readonly
	case noteHello:
		s.state.resp3 = n.set.resp3
		if n.set.named {
			s.state.named, s.state.name = true, n.set.name
		}
	case noteName:
		s.state.named, s.state.name = true, n.set.name
	case noteLibName:
		s.state.libName = n.set.name
	case noteLibVer:
		s.state.libVer = n.set.name
	}
	p.mu.Unlock()
	s.gen.Add(1)
}

// replay appends the commands that give a fresh connection this state, and what judges their replies.
func (st *connState) replay(out []byte, want []func(*resp.Replies) error) ([]byte, []func(*resp.Replies) error) {
	add := func(judge func(*resp.Replies) error, args ...string) {
		out = resp.AppendCommand(out, args...)
		want = append(want, judge)
	}
	if st.resp3 {
		add(isHello, "HELLO", "3")
	}
	if st.db != 0 {
		add(isSet, "SELECT", strconv.Itoa(st.db))
	}
	if st.readonly {
		add(isSet, "READONLY")
	}
	if st.named {
		add(isOKOrError, "CLIENT", "SETNAME", st.name)
	}
	if st.libName != "" {
		add(isOKOrError, "CLIENT", "SETINFO", "LIB-NAME", st.libName)
	}
	if st.libVer != "" {
		add(isOKOrError, "CLIENT", "SETINFO", "LIB-VER", st.libVer)
	}
	return out, want
}

func isHello(r *resp.Replies) error {
	if r.Kind() == '%' {
		return nil
	}
	return stateError(r)
}

func isSet(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	return stateError(r)
}

func stateError(r *resp.Replies) error {
	if isBusy(r) {
		return errBackendBusy
	}
	return errBackendState
}
