package proxy

import (
	"errors"
	"fmt"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/command"
	"dragontls/proxy/lane"
	"dragontls/proxy/resp"
)

// batch is what the session's reader has framed and not submitted yet. A batch is submitted as a whole, to one connection.
type batch struct {
	out       lane.Batch // canonical bytes for the backend, gathered until the reader would wait
	pend      []slot     // the slots of these commands, and of local replies among them
	tallied   []tally
	counted   int64     // bytes that countBatch has counted on the account
	route     routeKind // the strongest that a command of the batch needs
	stateful  bool      // if it were answered by local errors, the session's state would be unknown
	scripting bool      // it contains a command after which the client may believe that the backend knows a script
	hasTx     bool      // it contains a whole transaction
	changes   bool      // a command of it may do more than read
	frames    int       // whole commands in out
	whole     int       // 1 + the index in pend of a MULTI whose EXEC may still come in this batch; 0 if there is none
}

// nextCommand is what classify has found out about the command that queueFrame adds next.
type nextCommand struct {
	note *note
	part txPart
}

// txPart says which part the command has in a whole transaction, which is one that is in one batch from MULTI to EXEC.
type txPart uint8

const (
	txPartNone txPart = iota
	txPartBegin
	txPartEnd
)

// queueFrame adds a command's slot and its canonical frame to the batch. blocks means that the command may wait for other
// clients. hot
func (s *session) queueFrame(frame []byte, kind slotKind, blocks bool) {
	c := &s.client
	next := c.next
	c.next = nextCommand{}
	last := len(c.pend) - 1
	proves := !s.proven.Load()
	if len(frame) > 0 {
		c.frames++
	}
	switch {
	case s.uncounting():
	case kind != slotReplies:
		c.pend = append(c.pend, slot{kind: kind, note: next.note, blocking: blocks, n: 1})
	case next.note != nil:
		c.pend = append(c.pend, slot{kind: slotNoted, note: next.note, blocking: blocks, n: 1})
	case next.part == txPartBegin:
		c.pend = append(c.pend, slot{tx: true, proves: proves, n: 1})
		c.whole = len(c.pend)
		c.out.Replies++
	case c.whole > 0:
		c.pend[c.whole-1].n++
		c.out.Replies++
		if next.part == txPartEnd {
			c.hasTx, c.whole = true, 0
		}
	case last >= 0 && c.pend[last].kind == slotReplies && c.pend[last].blocking == blocks && !c.pend[last].tx && c.pend[last].proves == proves:
		c.pend[last].n++
		c.out.Replies++
	default:
		c.pend = append(c.pend, slot{blocking: blocks, proves: proves, n: 1})
		c.out.Replies++
	}
	s.add(frame)
}

// add appends canonical bytes to the batch. The caller must have made room for them, as classify does. An inline command may
// still be longer than the chunk in its canonical form: the bytes move out of the chunk then. hot
func (s *session) add(b []byte) {
	c := &s.client
	if c.out.Chunk == nil {
		c.out.Chunk = s.account().Chunk()
		c.out.Bytes = c.out.Chunk[:0]
	}
	c.out.Bytes = append(c.out.Bytes, b...)
}

// count counts a command that is passed on. It adds up runs of the same command, which flush hands on to tallied. hot
func (s *session) count(cmd *command.Command) {
	c := &s.client
	if c.last != cmd {
		s.handOnCount()
		c.last = cmd
	}
	c.lastN++
	if s.server.auditsCommands {
		s.auditCommand(cmd, false)
	}
}

func (s *session) handOnCount() {
	c := &s.client
	if c.lastN == 0 {
		return
	}
	s.client.tallied = append(s.client.tallied, tally{c.last.ID, c.lastN})
	c.commands += c.lastN
	c.lastN = 0
}

// tally is how many commands of one kind are in the batch.
type tally struct {
	id int // of the command
	n  uint64
}

// tally counts the batch's commands in the counters of the path that they take. The caller calls it before a byte of them is
// written. hot
func (s *session) tally(path pathCounters) {
	for _, t := range s.client.tallied {
		path[t.id].Add(t.n)
	}
	s.client.tallied = s.client.tallied[:0]
	if cap(s.client.tallied) > fewSlots {
		s.client.tallied = nil
	}
}

// flush submits the batch, if there is one: its slots enter the reply order before its bytes are written. The reader calls
// it before every read that may wait. After an error the session takes no more commands.
func (s *session) flush() error {
	c := &s.client
	if c.flushErr != nil {
		return c.flushErr
	}
	s.handOnCount()
	if len(c.pend) == 0 && len(c.out.Bytes) == 0 {
		return nil
	}
	s.countBatch()
	return s.submit()
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

// upstream tells the pump that a command waits for the own connection, and returns the connection, or the error of its
// dial. It waits at most unavailableTimeout, not counting the wait for a token (awaitDial).
func (s *session) upstream() (*ownConn, error) {
	p := &s.pump
	p.mu.Lock()
	up, err := p.up, p.upErr
	if up == nil && err == nil && p.wanted.IsZero() {
		p.wanted = time.Now()
		close(p.want)
	}
	p.mu.Unlock()
	if up != nil || err != nil {
		return up, err
	}
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	q.notifyLocked()
	if !q.waitLocked(func() bool {
		up, err = s.upstreamNow()
		return up != nil || err != nil
	}) {
		return nil, errEnded
	}
	return up, err
}
