package proxy

import (
	"bytes"
	"slices"
	"strconv"

	"dragontls/proxy/backend"
	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// maxRemembered: a session with a longer name keeps its own connection.
const maxRemembered = 512

// noteKind says what a reply that is no error, or ends a transaction, tells of the session.
type noteKind uint8

const (
	noteError     noteKind = iota // only an error is of interest
	noteSelect                    // db
	noteHello                     // name where named; the reply itself tells the protocol
	noteReadonly                  // readonly
	noteName                      // name
	noteLibName                   // name
	noteLibVer                    // name
	noteUnknown                   // the command is not known: the session keeps its own connection
	noteScript                    // the script is not known: the session keeps its own connection unless the backend does not know it either
	noteExec                      // an array, null or an error that discards the transaction ends what began before
	noteWholeExec                 // the same, where what began went in the same batch: nothing else tells of it
	noteOwnerExec                 // nothing: the session keeps its own connection anyway
	noteDiscard                   // +OK does
	noteUnwatch                   // +OK does
	noteAsked                     // any reply ends an ASKING
	noteGetName                   // the reply is the name of the connection, see passName
)

// These values of sharing.database say whether state.Database is the database of the session's own connection.
const (
	databaseNoted   int32 = iota
	databaseUnknown       // a script or a transaction may have selected another one
)

// classifyMove notes a command that may change the database. The reply to a SELECT tells which one was selected, if it is
// counted and no transaction is open; of any other such command nothing tells. A session that keeps its own connection
// remembers its database too, because keepUser needs it.
func (s *session) classifyMove(cmd *command.Command, class command.Class, frame []byte) {
	switch {
	case cmd.Name == "SELECT" && s.keepsOwn() && !s.uncounting() && s.client.tx == txNone:
		if s.client.next.note = noteOfState(cmd.Name, resp.SplitArgs(frame, nil)); s.client.next.note == nil {
			s.database.Store(databaseUnknown)
		}
	case cmd.Name == "SELECT" && (s.keepsOwn() || s.sticky()), isScript(cmd, class):
		s.database.Store(databaseUnknown)
	}
}

// isScript reports whether a command runs a script that may change the state of its connection.
func isScript(cmd *command.Command, class command.Class) bool {
	return class == command.Script || cmd.Name == "FCALL" || cmd.Name == "FCALL_RO"
}

// note waits in the queue for the reply that it is about.
type note struct {
	kind  noteKind
	set   backend.State // what of it kind names
	began uint64        // sharing.stickies when the command was sent
	heard []byte        // with noteHello: the beginning of the reply
}

// isOfExec reports whether the reply is that to an EXEC. n may be nil.
func (n *note) isOfExec() bool {
	return n != nil && (n.kind == noteExec || n.kind == noteWholeExec || n.kind == noteOwnerExec)
}

// maxHeard is how much of a reply to HELLO is kept to find its protocol. Redis and Dragonfly name it within 128 bytes.
const maxHeard = 512

// hear takes a piece of the reply, as it comes.
func (n *note) hear(b []byte) {
	if n.kind == noteHello {
		n.heard = append(n.heard, b[:min(len(b), maxHeard-len(n.heard))]...)
	}
}

// protocolOf returns the protocol that a reply to HELLO names and is written in, or 0 if that is unclear. The arguments of
// HELLO do not tell it: without any, Redis keeps the protocol and Dragonfly goes back to RESP2.
func protocolOf(reply []byte) int {
	_, rest, found := bytes.Cut(reply, []byte("proto\r\n:"))
	switch {
	case found && reply[0] == '*' && bytes.HasPrefix(rest, []byte("2\r\n")):
		return 2
	case found && reply[0] == '%' && bytes.HasPrefix(rest, []byte("3\r\n")):
		return 3
	}
	return 0
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
			return &note{kind: noteSelect, set: backend.State{Database: db}}
		}
	case "READONLY", "READWRITE":
		if len(args) != 1 {
			return &note{kind: noteError}
		}
		return &note{kind: noteReadonly, set: backend.State{ReadOnly: name == "READONLY"}}
	case "HELLO":
		return noteOfHello(args)
	case "CLIENT":
		switch {
		case len(args) == 3 && command.IsWord(args[1], "SETNAME"):
			return &note{kind: noteName, set: backend.State{Name: string(args[2])}}
		case len(args) == 4 && command.IsWord(args[1], "SETINFO") && command.IsWord(args[2], "LIB-NAME"):
			return &note{kind: noteLibName, set: backend.State{Name: string(args[3])}}
		case len(args) == 4 && command.IsWord(args[1], "SETINFO") && command.IsWord(args[2], "LIB-VER"):
			return &note{kind: noteLibVer, set: backend.State{Name: string(args[3])}}
		}
	}
	return nil
}

func noteOfHello(args [][]byte) *note {
	n := &note{kind: noteHello}
	switch {
	case len(args) == 1:
		return n
	case string(args[1]) != "2" && string(args[1]) != "3":
		return nil
	}
	switch rest := args[2:]; {
	case len(rest) == 0:
	case len(rest) == 2 && command.IsWord(rest[0], "SETNAME"):
		n.set.Named, n.set.Name = true, string(rest[1])
	default:
		return nil
	}
	return n
}

// helloAuthenticates reports whether a HELLO may change the user, which it may even if it fails afterwards.
func helloAuthenticates(frame []byte) bool {
	return slices.ContainsFunc(resp.SplitArgs(frame, nil)[1:], func(a []byte) bool { return command.IsWord(a, "AUTH") })
}

// noted acts on the reply to a command whose outcome the session has to know. The pump calls it.
func (s *session) noted(n *note, r *resp.Replies) {
	failed := r.Kind() == '-'
	ok := r.Kind() == '+' && string(r.Line()) == "OK"
	switch n.kind {
	case noteExec:
		s.endSticky(n, backend.EndsTransaction(r))
	case noteAsked:
		s.endSticky(n, true)
	case noteWholeExec:
		if !backend.EndsTransaction(r) {
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
	case noteError, noteOwnerExec:
	case noteHello:
		protocol := protocolOf(n.heard)
		switch {
		case failed:
		case protocol == 0:
			s.keepOwn()
		default:
			n.set.RESP3 = protocol == 3
			s.remember(n)
		}
	case noteSelect:
		switch {
		case ok:
			s.remember(n)
		case !failed: // queued, in a transaction of which nobody knows
			s.keepOwn()
			s.database.Store(databaseUnknown)
		}
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
		s.state.Database = n.set.Database
	case noteReadonly:
		s.state.ReadOnly = n.set.ReadOnly
	case noteHello:
		s.state.RESP3 = n.set.RESP3
		if n.set.Named {
			s.state.Named, s.state.Name = true, n.set.Name
		}
	case noteName:
		s.state.Named, s.state.Name = true, n.set.Name
	case noteLibName:
		s.state.LibraryName = n.set.Name
	case noteLibVer:
		s.state.LibraryVersion = n.set.Name
	}
	p.mu.Unlock()
	s.gen.Add(1)
}
