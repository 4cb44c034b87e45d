package proxy

import (
	"errors"
	"time"

	"dragontls/proxy/command"
	"dragontls/proxy/netio"
)

// batch is what the reader has framed and not submitted yet. It goes one way as a whole.
type batch struct {
	out        []byte // canonical bytes for the backend, gathered until the reader would wait
	outChunk   *netio.Chunk
	pend       []slot // their slots
	tallied    []tally
	counted    int64 // see countBatch
	route      routeKind
	stateful   bool // an error of ours would leave the session's state unknown
	hasTx      bool // there is a whole transaction
	resendable bool // it is one command that may be asked again
	replies    int  // that lanes would bring
	frames     int  // whole commands among its bytes
	whole      int  // 1 + index in pend of the transaction that may become a whole one; 0: none
}

// nextCommand is what classify has found out about the command that is queued next.
type nextCommand struct {
	note *note
	part txPart
}

// txPart says what the command is in a whole transaction, one that is in one batch.
type txPart uint8

const (
	txPartNone txPart = iota
	txPartBegin
	txPartEnd
)

// queueFrame adds a frame to the batch. hot
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
		c.pend = append(c.pend, slot{kind: kind, blocking: blocks, n: 1})
	case next.note != nil:
		c.pend = append(c.pend, slot{kind: slotNoted, note: next.note, blocking: blocks, n: 1})
	case next.part == txPartBegin:
		c.pend = append(c.pend, slot{tx: true, proves: proves, n: 1})
		c.whole = len(c.pend)
		c.replies++
	case c.whole > 0:
		c.pend[c.whole-1].n++
		c.replies++
		if next.part == txPartEnd {
			c.hasTx, c.whole = true, 0
		}
	case last >= 0 && c.pend[last].kind == slotReplies && c.pend[last].blocking == blocks && !c.pend[last].tx && c.pend[last].proves == proves:
		c.pend[last].n++
		c.replies++
	default:
		c.pend = append(c.pend, slot{blocking: blocks, proves: proves, n: 1})
		c.replies++
	}
	s.add(frame)
}

// add puts canonical bytes into the batch, in which classify has made room for them. hot
func (s *session) add(b []byte) {
	c := &s.client
	if c.outChunk == nil {
		c.outChunk = s.account().Chunk()
		c.out = c.outChunk[:0]
	}
	c.out = append(c.out, b...)
}

// count adds up runs of the same command; flush hands them on. hot
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

// tally counts the batch's commands for the way that they go. It is called before a byte of them is written. hot
func (s *session) tally(path pathCounters) {
	for _, t := range s.client.tallied {
		path[t.id].Add(t.n)
	}
	s.client.tallied = s.client.tallied[:0]
	if cap(s.client.tallied) > fewSlots {
		s.client.tallied = nil
	}
}

// flush writes the batch: first the places of its replies, then its bytes. It runs before every read that waits.
func (s *session) flush() error {
	c := &s.client
	if c.flushErr != nil {
		return c.flushErr
	}
	s.handOnCount()
	if len(c.pend) == 0 && len(c.out) == 0 {
		return nil
	}
	s.countBatch()
	return s.submit()
}

// answerUnavailable answers everything that waits to be sent, and ends the session.
func (s *session) answerUnavailable(err error) {
	c := &s.client
	text, reason := textUnavailable, closeUnavailable
	switch {
	case errors.Is(err, errBackendAuth):
		text, reason = textBackendAuth, closeBackendAuth
	case errors.Is(err, errBackendOpen):
		text, reason = textBackendOpen, closeBackendOpen
	case errors.Is(err, errBackendState):
		text, reason = textBackendState, closeBackendState
	}
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

// upstream waits for the backend connection, at most unavailableTimeout.
func (s *session) upstream() (*backendConn, error) {
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
