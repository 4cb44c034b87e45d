package proxy

import (
	"errors"
	"os"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/resp"
)

// passOn reads once from the backend, and passes on what came. If the read fails, ownEnded decides what becomes of the
// session.
func (s *session) passOn(up *ownConn) pumpNext {
	if s.pump.limit.Load() != 0 {
		s.pump.limitRead(up)
	}
	if up.parts.Load() {
		return s.pumpParts()
	}
	b, k, err := up.Receive()
	defer up.Free(k)
	if up.rests.state.Load() == restAsked {
		interrupted := errors.Is(err, os.ErrDeadlineExceeded)
		if s.pumpAsked(up, interrupted && len(b) == 0) {
			return pumpAtRest
		}
		if interrupted {
			err = nil
		}
	}
	if len(b) > 0 && s.relay(b) != nil {
		return pumpEnds
	}
	if up.parts.Load() {
		return s.pumpParts()
	}
	if err != nil {
		s.ownEnded(err)
		return pumpEnds
	}
	s.shedProof()
	return pumpGoesOn
}

// pumpNext is what the pump is to do after a read.
type pumpNext uint8

const (
	pumpGoesOn pumpNext = iota
	pumpEnds
	pumpAtRest // end without closing: the connection now belongs to the goroutine that wakes it
)

// limitRead applies limit to the next read. If limitBackend lowers the limit meanwhile, its deadline may already have been
// replaced by the one that is set here: so limitRead looks again.
func (p *pump) limitRead(up *ownConn) {
	for d, last := p.limit.Load(), int64(0); d != last; d, last = p.limit.Load(), d {
		up.setReadDeadline(time.Now().Add(time.Duration(d)))
	}
}

// relay passes on b, which the pump has read from the own connection. An error means that the session has ended. The pump
// calls it. hot
func (s *session) relay(b []byte) error {
	p, q := &s.pump, &s.queue
	if !p.turn.held() {
		if p.turn = s.acquireTurn(); !p.turn.held() {
			return errEnded
		}
	}
	d := relaying{s: s, b: b}
	for d.i < len(b) {
		if err := d.frame(); err != nil {
			return err
		}
	}
	if err := p.turn.write(b[d.start:]); err != nil {
		return err
	}
	if d.finished > 0 || q.uncounted() {
		s.lastActive.Store(s.server.now())
	}
	t := p.turn
	if p.replies.Open() {
		t.settle(d.answered, d.unblocked)
	} else {
		p.turn = noTurn
		if err := t.settleAndRelease(d.answered, d.unblocked); err != nil {
			return err
		}
	}
	s.shedDirty()
	return nil
}

// relaying is the pump's work on the bytes of one read from the backend.
type relaying struct {
	s         *session
	b         []byte
	start, i  int  // b[start:i] is framed and not yet written
	answered  int  // replies of slots, to be settled
	unblocked int  // slots of blocking commands that have ended, to be settled
	finished  int  // slots that have ended
	owes      bool // the own connection, not a lane, owes what is owed; this cannot change before the read is settled
}

// frame handles what b holds of one frame: the whole frame or its beginning, middle or end. hot
func (d *relaying) frame() error {
	s := d.s
	p, q := &s.pump, &s.queue
	begins := !p.replies.Open()
	if begins {
		if err := d.begin(); err != nil {
			return err
		}
	}
	n, done, err := p.replies.Next(d.b[d.i:])
	if err != nil {
		d.malformed(err, begins)
		return err
	}
	if p.replies.Kind() == '>' { // a push has no slot, and the run may be that of a lane
		d.i += n
		return nil
	}
	if q.run.kind == slotExec && !q.uncounted() {
		return d.withhold(n, done)
	}
	isNoted := q.run.kind == slotNoted && !q.uncounted()
	if isNoted {
		if q.run.note.kind == noteGetName {
			return d.passName(n, done)
		}
		q.run.note.hear(d.b[d.i : d.i+n])
	}
	d.i += n
	if !done {
		return nil
	}
	if p.replies.Kind() == '-' || p.replies.Found() {
		s.server.suspect(p.conn.Conn, &p.replies, q.run.note.isOfExec())
	}
	if isNoted {
		s.noted(q.run.note, &p.replies)
		d.count()
		return nil
	}
	if q.run.n > 0 && q.run.kind != slotReplies || q.uncounted() {
		return d.special()
	}
	if q.run.proves && p.replies.Kind() != '-' {
		s.prove()
	}
	d.count()
	return nil
}

// begin finds the slot of the frame that begins now, if it needs one. It ends the session if nobody asked for the frame. hot
func (d *relaying) begin() error {
	s, q := d.s, &d.s.queue
	if q.uncounted() {
		return nil
	}
	push := d.b[d.i] == '>'
	if !d.owes {
		owe, due := q.lanesOwe()
		if owe && !push {
			if err := d.flush(); err != nil {
				return err
			}
			return s.unasked(d.b[d.i:])
		}
		d.owes = due
	}
	if push || d.owes && q.run.n > 0 {
		return nil
	}
	if err := d.next(); err != nil {
		return err
	}
	d.owes = !q.uncounted()
	return nil
}

// next makes run the slot of the frame that begins now, after writing the local replies that are due before it. If there is
// no slot, nobody asked for the frame, and it ends the session.
func (d *relaying) next() error {
	s, q := d.s, &d.s.queue
	for {
		ok, uncounted := q.nextRun()
		if ok || uncounted {
			return nil
		}
		if err := d.flush(); err != nil {
			return err
		}
		l, local := q.nextLocal()
		if !local {
			return s.unasked(d.b[d.i:])
		}
		if err := s.pump.turn.writeLocal(l); err != nil {
			return err
		}
	}
}

// count accounts for one whole reply of the current run, which relay settles later. hot
func (d *relaying) count() {
	q := &d.s.queue
	if q.uncounted() {
		return
	}
	q.run.n--
	d.answered++
	if q.run.n > 0 {
		return
	}
	d.finished++
	if q.run.blocking {
		d.unblocked++
	} else {
		d.s.stripe.durations.observe(d.s.server.now().Sub(q.run.sent), 1)
	}
}

// flush writes what is framed so far.
func (d *relaying) flush() error {
	err := d.s.pump.turn.write(d.b[d.start:d.i])
	d.start = d.i
	return err
}

// malformed ends the session because of a frame that cannot be passed on. The client is told why in place of that frame, if
// no byte of the frame was passed on before: the frame begins in this read.
func (d *relaying) malformed(err error, begins bool) {
	s := d.s
	if d.flush() == nil && begins && d.b[d.i] != '>' && !s.queue.uncounted() {
		_ = s.pump.turn.write(textMalformed)
	}
	s.event(s.server.log.Warn()).Str("backend", s.server.backend.URL()).Err(err).Msg("backend sent a malformed reply")
	s.server.backend.Count("malformed")
	s.end(closeBackendError)
}

// unasked logs and counts a reply that nobody asked for, which begins rest, and ends the session. It passes that reply on if it is
// an error, since it may be what the backend says before it closes.
func (s *session) unasked(rest []byte) error {
	if rest[0] == '-' {
		var r resp.Replies
		if n, done, err := r.Next(rest); done && err == nil {
			_ = s.pump.turn.write(rest[:n])
		}
	}
	s.noteUnasked()
	s.end(closeBackendError)
	return errEnded
}

// noteUnasked counts that the session's own connection brought a reply that nobody asked for, and logs it, limit.MaxLines a second. A
// session that has ended has nothing to say of what still comes.
func (s *session) noteUnasked() {
	if s.ended() {
		return
	}
	s.server.backend.Count("unasked")
	if !s.server.unaskedLines.Pass(s.server.now(), s.quotaKey()) {
		return
	}
	e := s.server.log.Warn().Str("backend", s.server.backend.URL())
	s.describe(e)
	e.Str("cure", backend.Explain(backend.ErrUnasked).Cure).Msg("the backend sent a reply that nobody asked for: the session ends")
}

// acquireTurn waits until nobody else has the turn and no reply of a lane is half delivered, and then takes the turn. The
// pump calls it. It returns noTurn if the session has ended.
func (s *session) acquireTurn() writeTurn {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && (q.turn || q.half) {
		q.changed.Wait()
	}
	if q.closed {
		return noTurn
	}
	q.turn = true
	return writeTurn{s}
}

// owesElsewhere reports whether what is owed is not for the own connection to answer: lanes owe it, or it is a read that is to be sent again
// and was not yet. The caller must hold q.mu.
func (q *replyOrder) owesElsewhere() bool { return q.onLane || q.out != nil && q.out.resend != nil }

// lanesOwe tells the pump about a frame that begins now: owe reports whether lanes owe what is owed, so that the own
// connection has nothing to answer; due reports whether otherwise the frame belongs to the current run.
func (q *replyOrder) lanesOwe() (owe, due bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	owe = q.owesElsewhere() && !q.uncounted()
	return owe, !owe && q.run.n > 0
}

// nextRun makes run the slot of the frame that begins now on the own connection. The pump calls it and has the turn. ok is
// false if the own connection owes nothing next: a local reply must be written first, or nobody asked for this frame. If
// uncounted is true, the frame needs no slot, and ok is false.
func (q *replyOrder) nextRun() (ok, uncounted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.localFirstLocked()
	if q.uncounted() {
		return false, true
	}
	if q.owesElsewhere() || q.slots.Len() == 0 || q.slots.At(0).kind.local() {
		return false, false
	}
	q.run = q.popLocked()
	return true, false
}
