package proxy

import (
	"context"

	"dragontls/proxy/backend"
	"dragontls/proxy/command"
	"dragontls/proxy/resp"
)

// RESET makes a connection as good as new: the session's reader passes it on alone (reset), and the pump acts on its reply
// (resetDone, resetRefused) while the reader waits.

// reset passes RESET on alone: it waits until nothing is owed, unless replies are not counted, and sends nothing more until
// the reply is known. It returns false if the session takes no more from its client.
func (s *session) reset(cmd *command.Command, frame []byte, args int) bool {
	frame = append([]byte(nil), frame...)
	s.account().Hold(int64(len(frame)))
	defer s.account().Hold(-int64(len(frame)))
	if !s.settleBefore() {
		return false
	}
	s.count(cmd)
	a := awaitReset
	if args != 1 {
		a = awaitFutileReset // after an error, whichever command it answers, the connection is not reset
	}
	s.setBare(true) // it takes everything off the connection
	o, ok := s.await(a, slotReset, frame)
	s.setBare(false)
	if !ok {
		return false
	}
	refused := o == outcomeRefused
	if refused {
		s.dropBare()
	}
	if refused && a == awaitReset && s.uncounting() && s.ownUser() {
		// The error may have been the reply to another command. If RESET has worked after all, the connection acts as
		// another user.
		s.end(closeReset)
		return false
	}
	if !refused {
		s.transact(txEnds)
	}
	return true
}

// resetDone handles a RESET that has worked: the connection is as good as new. If dragontls had authenticated it, a fresh
// one takes its place.
func (d *relaying) resetDone() error {
	s := d.s
	if d.i < len(d.b) && s.mustReplace() {
		return s.unasked(d.b[d.i:])
	}
	s.forgetState()
	if !s.mustReplace() {
		if err := d.nameAgain(); err != nil {
			return err
		}
	} else if err := s.replaceUpstream(); err != nil {
		return err
	}
	s.queue.recount()
	d.answered, d.unblocked, d.owes = 0, 0, false
	s.decide(outcomeDone)
	return nil
}

// resetRefused handles a reply to RESET that is not +RESET, such as an error.
func (d *relaying) resetRefused() error {
	s := d.s
	if !s.queue.uncounted() && s.mustReplace() && !s.clientAuth() {
		if err := d.keepUser(); err != nil {
			return err
		}
	}
	s.decide(outcomeRefused)
	return nil
}

// mustReplace reports whether dragontls authenticated the own connection, so that a RESET would drop the user it chose.
func (s *session) mustReplace() bool {
	up, _ := s.upstreamNow()
	return up != nil && up.Authenticated()
}

// nameAgain gives the own connection the client's name again, as a new one would have it.
func (d *relaying) nameAgain() error {
	s := d.s
	name := s.login().Name
	if name == "" || d.i < len(d.b) { // what follows +RESET ends the session
		return nil
	}
	err := s.pump.conn.NameAgain(name, &s.pump.replies)
	if err != nil {
		s.end(closeBackendError)
	}
	return err
}

// replaceUpstream puts a fresh, authenticated connection in the place of one on which RESET has dropped the user that
// dragontls chose. The session's reader waits meanwhile. If it fails, the session has ended.
func (s *session) replaceUpstream() error {
	s.pump.conn.Drop()
	if s.pump.whileLoading != backend.LoadingUnasked {
		s.pump.whileLoading = backend.LoadingNoted // the old connection leads to the same process
	}
	if _, ok := s.awaitDial(); !ok {
		return errEnded
	}
	ctx, cancel := s.dialContext()
	defer cancel()
	ctx, cancelDeadline := context.WithTimeout(ctx, s.server.c.unavailableTimeout)
	defer cancelDeadline()
	up, err := s.dialOwn(ctx, false)
	if err != nil {
		_, reason := unavailable(err)
		s.end(reason)
		return err
	}
	s.pump.replies = resp.Replies{}
	if !s.setUpstream(up, nil) {
		return errEnded
	}
	return nil
}

// keepUser runs after an error reply to RESET. It is not certain that the error was meant for RESET, since an argument of an
// earlier command may forge an error. So the connection authenticates again before it carries another byte of the client,
// and stays in its database. Pushes that come meanwhile are passed on.
func (d *relaying) keepUser() error {
	s, p := d.s, &d.s.pump
	for d.i < len(d.b) {
		if !p.replies.Open() && d.b[d.i] != '>' {
			return s.unasked(d.b[d.i:])
		}
		n, _, err := p.replies.Next(d.b[d.i:])
		if err != nil {
			s.end(closeBackendError)
			return err
		}
		d.i += n
	}
	if err := d.flush(); err != nil {
		return err
	}
	db := backend.UnknownDatabase
	if s.database.Load() == databaseNoted {
		p.mu.Lock()
		db = s.state.Database
		p.mu.Unlock()
	}
	if err := p.conn.AuthenticateAgain(&p.replies, db, p.turn.write); err != nil {
		s.end(closeReset)
		return err
	}
	return nil
}

// forgetState forgets what the session had set and a RESET has cleared, such as the database, the protocol and the name.
func (s *session) forgetState() {
	s.pump.mu.Lock()
	s.state = backend.State{}
	s.database.Store(databaseNoted)
	s.pump.mu.Unlock()
	s.gen.Add(1)
}

// recount starts counting replies again, if they were not counted: the connection was reset, and nothing is owed on it.
func (q *replyOrder) recount() {
	q.mu.Lock()
	q.counting.Store(counted)
	q.run, q.owed, q.blocked = slot{}, 0, 0
	q.mu.Unlock()
}
