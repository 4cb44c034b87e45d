package proxy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/command"
	"dragontls/proxy/lane"
	"dragontls/proxy/resp"
)

var (
	errReopen = errors.New("the own connection was closed")
	noTime    time.Time
)

// Lose is called because the lane that owed replies is gone, see lane.Rider. The session ends, as a direct connection would,
// whether its commands may have run or were not sent: client libraries repeat or report by themselves what was under way when a
// connection ends, and can do neither after an error. A read that was alone in flight (again, or nil) is sent again instead.
func (s *session) Lose(again []byte) {
	q := &s.queue
	q.mu.Lock()
	ends, reason := true, closeBackendError
	var stale *ownConn
	switch {
	case q.closed:
		ends = false
	case again != nil && q.out.resend != nil: // the session's reader is about to send it again
		q.onLane, ends = false, false
	case !q.answered:
	case s.believes():
		reason = closeScripts
	case again != nil && s.mayReadAgainLocked():
		ends, stale = false, s.readAgainLocked(again)
	}
	q.mu.Unlock()
	if stale != nil {
		stale.part()
	}
	if ends {
		s.end(reason)
	}
}

// mayReadAgainLocked reports whether nothing else is owed, nothing of the reply was delivered, and the own connection, if
// there is one, may be replaced.
func (s *session) mayReadAgainLocked() bool {
	q, p := &s.queue, &s.pump
	p.mu.Lock()
	defer p.mu.Unlock()
	return q.owed == 1 && q.run.n == 0 && q.out.resend == nil && (p.up == nil || !p.inUse)
}

// readAgainLocked has the session's reader send the command again, over a fresh own connection: the last one was opened before
// the loss. It returns the last one, if there is one, with which the caller must part.
func (s *session) readAgainLocked(frame []byte) (stale *ownConn) {
	q, p := &s.queue, &s.pump
	q.out.resend, q.onLane = frame, false
	p.mu.Lock()
	if stale = p.up; stale != nil {
		p.up, p.upErr = nil, errReopen
	}
	p.mu.Unlock()
	q.notifyLocked()
	s.interrupt()
	return stale
}

// woken clears the read deadline by which the session's reader was interrupted, and sends a command again if the reader
// is wanted for that. The reader calls it.
func (s *session) woken() {
	q := &s.queue
	q.mu.Lock()
	if !q.closed {
		s.client.conn.SetReadDeadline(noTime)
	}
	q.mu.Unlock()
	s.resend()
}

// isGone reports whether err shows that the backend's process has ended: it refuses connections, or it has begun again and is
// loading. A direct connection would have ended with the process. A backend that is silent, or that takes no more connections,
// may still have all those that it had.
func isGone(err error) bool {
	return backend.IsRefused(err) || errors.Is(err, lane.ErrLoading) || backend.IsLoading(err)
}

// endUnsent ends the session once everything that is due before its batch is written. No command of the batch was sent, and none
// gets a reply.
func (s *session) endUnsent(err error) {
	c := &s.client
	s.tally(s.stripe.local)
	if i := slices.IndexFunc(c.pend, func(p slot) bool { return !p.kind.local() }); i >= 0 {
		c.pend = c.pend[:i]
	}
	c.flushErr, c.ending = err, true
	s.push(append(c.pend, slot{kind: slotFinal, n: 1, reason: closeUnavailable}))
}

// failBatch answers with errors the commands of a batch that could not be sent. If the backend is gone, the session ends
// instead, for the same reason as in Lose. What the client sends next is answered the same way until all these errors
// are written and the client's socket is empty. So, as over a direct connection, a prefix of what the client sent was executed. If
// the session's state would be unknown afterwards, the session ends after the errors.
func (s *session) failBatch(err error) {
	c := &s.client
	if s.ended() {
		c.flushErr = errEnded
		return
	}
	if isGone(err) {
		s.endUnsent(err)
		return
	}
	// A backend that is up refuses each command by its own error: the client knows what has become of its state.
	up := backend.IsUp(err) && !slices.ContainsFunc(c.pend, slot.isAwaited)
	final := c.stateful && !up || s.keepsOwn() || s.sticky() || !s.everAnswered() ||
		errors.Is(err, backend.ErrAuth) || errors.Is(err, backend.ErrOpen) || errors.Is(err, backend.ErrState)
	s.tally(s.stripe.local)
	if final {
		s.answerUnavailable(err)
		return
	}
	text, _ := unavailable(err)
	c.recovering, s.middle = c.recovering || !up, nil
	for i, p := range c.pend {
		if p.kind == slotReplies || p.kind == slotNoted {
			c.pend[i] = slot{kind: slotLocal, n: p.n, text: text}
		}
	}
	if c.streamed != nil {
		c.skipping = true
	}
	s.push(c.pend)
	s.dropBatch()
}

func (s *session) everAnswered() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.answered
}

// answerLost answers a command by an error, because a command before it was not sent (failBatch). A stateful command ends the
// session. It returns false if the session takes no more from its client.
func (s *session) answerLost(cmd *command.Command, stateful bool) bool {
	if stateful {
		s.count(cmd)
		s.lastWord(textUnavailable, closeUnavailable)
		return false
	}
	c := &s.client
	s.stripe.local[cmd.ID].Add(1)
	c.commands.Add(1)
	c.pend = append(c.pend, slot{kind: slotLocal, n: 1, text: textUnavailable})
	return len(c.pend) < 256 || s.flush() == nil
}

// recover ends the time in which commands are answered by errors (failBatch). The session's reader calls it before it asks the kernel for more. It waits until every error reply is
// written; if the client's socket and the buffer are then empty, commands are passed on again.
func (s *session) recover() {
	c, q := &s.client, &s.queue
	if !s.park(func() bool { return q.owed == 0 && q.slots.Len() == 0 && !q.turn }) {
		return
	}
	if c.r < c.w || c.streamed != nil || c.sock.Readable() {
		return
	}
	c.recovering = false
}

// unavailable returns what clients are told whose command could not be sent because of err, and the reason for a session that ends
// then. A backend that is up, and refuses all the same, speaks for itself.
func unavailable(err error) (text []byte, reason closeReason) {
	var r *backend.Refusal
	refused := errors.As(err, &r)
	switch {
	case errors.Is(err, backend.ErrAuth):
		return textBackendAuth, closeBackendAuth
	case errors.Is(err, backend.ErrOpen):
		return textBackendOpen, closeBackendOpen
	case refused && errors.Is(err, backend.ErrState):
		return resp.AppendError(nil, fmt.Sprintf(formBackendState, r.Asked, r.Answer)), closeBackendState
	case errors.Is(err, backend.ErrState):
		return textBackendState, closeBackendState
	case refused && errors.Is(err, backend.ErrMaxClients):
		return r.Text(), closeMaxClients
	case refused && errors.Is(err, backend.ErrScript):
		return r.Text(), closeBackendBusy
	}
	return textUnavailable, closeUnavailable
}

// answerUnavailable answers every command of the batch with an error text that fits err, and then ends the session.
func (s *session) answerUnavailable(err error) {
	c := &s.client
	text, reason := unavailable(err)
	final := slot{kind: slotFinal, n: 1, text: nil, reason: reason}
	for i, p := range c.pend {
		if p.kind.local() {
			if p.kind == slotFinal {
				final.text = p.text
				c.pend[i] = slot{kind: slotLocal}
			}
			continue
		}
		c.pend[i] = slot{kind: slotLocal, n: max(1, p.n), text: text}
	}
	c.flushErr = err
	c.ending = true
	s.push(append(c.pend, final))
}
