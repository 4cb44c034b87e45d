package proxy

import (
	"context"

	"dragontls/proxy/resp"
)

// RESET makes a connection as good as new: the reader passes it on alone (reset), and the pump acts on its reply
// (resetDone, resetRefused) while the reader waits.

// reset passes RESET on alone: nothing is owed before it, and nothing follows before its reply is known.
func (s *session) reset(frame []byte) bool {
	frame = append([]byte(nil), frame...)
	s.account().Hold(int64(len(frame)))
	defer s.account().Hold(-int64(len(frame)))
	if !s.uncounting() {
		if s.flush() != nil || !s.hold(func() bool { return s.queue.owed == 0 }) {
			return false
		}
	}
	refused, ok := s.await(awaitReset, slotReset, frame)
	if !ok {
		return false
	}
	if refused && s.uncounting() && s.ownUser() {
		// Whose reply that error was cannot be known: the connection may act as another user by now.
		s.end(closeReset)
		return false
	}
	if !refused {
		s.transact(txEnds)
	}
	return true
}

// resetDone: the connection is as good as new. Where dragontls had authenticated it, another takes its place.
func (d *relaying) resetDone() error {
	s := d.s
	if d.i < len(d.b) && s.mustReplace() {
		return s.unasked(d.b[d.i:])
	}
	s.forgetState()
	if err := s.replaceUpstream(); err != nil {
		return err
	}
	s.queue.recount()
	d.answered, d.unblocked, d.owes = 0, 0, false
	s.decide(outcomeDone)
	return nil
}

// resetRefused: the backend took an error, or something else, for its answer.
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

func (s *session) mustReplace() bool {
	up, _ := s.upstreamNow()
	return up != nil && up.authenticated()
}

// replaceUpstream: RESET has dropped the user that dragontls chose, so a fresh, authenticated connection takes the
// place of the old one. The reader waits meanwhile.
func (s *session) replaceUpstream() error {
	if !s.mustReplace() {
		return nil
	}
	s.pump.conn.drop()
	if _, ok := s.awaitDial(); !ok {
		return errEnded
	}
	ctx, cancel := s.dialContext()
	defer cancel()
	ctx, cancelDeadline := context.WithTimeout(ctx, s.server.c.unavailableTimeout)
	defer cancelDeadline()
	up, err := s.server.backend.dial(ctx, s.login())
	if err != nil {
		s.end(closeUnavailable)
		return err
	}
	s.pump.replies = resp.Replies{}
	if !s.setUpstream(up, nil) {
		return errEnded
	}
	return nil
}

// keepUser follows an error reply to RESET. Whether the backend meant RESET with it cannot be known for sure (an
// argument may forge an error), so the connection authenticates anew before a client's byte follows. Pushes that come
// meanwhile are passed on.
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
	if err := p.conn.authenticateAgain(&p.replies, p.turn.write); err != nil {
		s.end(closeReset)
		return err
	}
	return nil
}

// forgetState follows a RESET.
func (s *session) forgetState() {
	s.pump.mu.Lock()
	s.state = connState{}
	s.pump.mu.Unlock()
	s.gen.Add(1)
}

// recount leaves uncounted mode: the connection was reset and nothing is owed on it.
func (q *replyOrder) recount() {
	q.mu.Lock()
	q.counting.Store(counted)
	q.run, q.owed, q.blocked = slot{}, 0, 0
	q.mu.Unlock()
}
