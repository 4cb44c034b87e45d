package proxy

import (
	"strconv"

	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// An operator sees the name of a client's certificate in CLIENT LIST until the client sets a name itself (givenName). The
// client does not: CLIENT GETNAME answers it null until then, as over a direct connection.
//
// Inside a transaction it answers the name of the certificate. There the name is an element of the reply to EXEC, which is passed on piece
// by piece as it comes, and an element of another transaction may be a value that is spelled the same. To replace the right one, the
// session would have to remember the place of each GETNAME in each transaction, and the framer to stop at each element.

// maxNameReply is longer than the reply to CLIENT GETNAME on a connection whose name dragontls gave.
const maxNameReply = maxConnectionName + 16

// givenName returns the name that dragontls gives to the session's own connection, or nothing if it gives it none.
func (s *session) givenName() string {
	if p := s.peer.Load(); s.server.c.Backend.SetName && p != nil && p.Identity != [32]byte{} {
		return connectionName(p.Name)
	}
	return ""
}

// asksForName reports whether a CLIENT command is GETNAME, and its reply could be the name that dragontls gave.
func (s *session) asksForName(sub []byte, args int) bool {
	return args == 2 && command.IsWord(sub, "GETNAME") && s.givenName() != ""
}

// noteOfOwner returns the note for a command of a session that keeps its own connection. Of its state only its protocol and
// its name matter. Where others share connections, they are told by its EXEC too that the backend is a replica, see Server.suspect.
func (s *session) noteOfOwner(cmd *command.Command, frame []byte) *note {
	switch {
	case cmd.Name == "CLIENT", cmd.Name == "HELLO":
	case cmd.Name == "EXEC" && s.server.c.Backend.Shared:
		return &note{kind: noteOwnerExec}
	default:
		return nil
	}
	n := noteOfState(cmd.Name, resp.SplitArgs(frame, nil))
	if n == nil && cmd.Name == "HELLO" {
		n = &note{kind: noteHello}
	}
	return n
}

// passName passes on n bytes of the reply to CLIENT GETNAME. They are held until it is whole, or too long to be a name that
// dragontls gave.
func (d *relaying) passName(n int, done bool) error {
	s, p := d.s, &d.s.pump
	if err := d.flush(); err != nil {
		return err
	}
	if len(p.held)+n > maxNameReply {
		if err := p.turn.write(p.held); err != nil {
			return err
		}
		s.dropHeld()
		d.i += n
		if done {
			d.count()
		}
		return nil
	}
	d.hold(n)
	if !done {
		return nil
	}
	d.count() // before the write, so that no reply is written that is not counted
	err := p.turn.write(s.nameFor(p.held))
	s.dropHeld()
	return err
}

// nameFor returns what the client gets for a reply to CLIENT GETNAME.
func (s *session) nameFor(reply []byte) []byte {
	given := s.givenName()
	s.pump.mu.Lock()
	state := s.state
	s.pump.mu.Unlock()
	switch {
	case string(reply) != "$"+strconv.Itoa(len(given))+"\r\n"+given+"\r\n", state.Named && state.Name == given:
		return reply
	case state.RESP3:
		return textNull3
	}
	return textNull
}
