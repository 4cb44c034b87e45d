package proxy

import (
	"bytes"
	"strings"
	"time"

	"dragontls/proxy/resp"
)

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
	if p.replies.Kind() == '-' {
		s.server.suspect(p.conn.Conn, p.replies.Line())
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

// malformed ends the session because of a frame that cannot be passed on. The client is told why in place of that frame, if
// no byte of the frame was passed on before: the frame begins in this read.
func (d *relaying) malformed(err error, begins bool) {
	s := d.s
	if d.flush() == nil && begins && d.b[d.i] != '>' && !s.queue.uncounted() {
		_ = s.pump.turn.write(textMalformed)
	}
	s.event(s.server.log.Warn()).Err(err).Msg("backend sent a malformed reply")
	s.server.backend.Count("malformed")
	s.end(closeBackendError)
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

// flush writes what is framed so far.
func (d *relaying) flush() error {
	err := d.s.pump.turn.write(d.b[d.start:d.i])
	d.start = d.i
	return err
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
		d.s.stripe.durations.observe(time.Duration(d.s.server.now()-q.run.sent), 1)
	}
}

// withhold keeps n bytes of the reply to a DISCARD that was sent in place of a doomed EXEC. Once the reply is whole, the
// client gets EXECABORT if it is +OK, or else the reply itself.
func (d *relaying) withhold(n int, done bool) error {
	s, p := d.s, &d.s.pump
	if len(p.held)+n > maxHeld {
		s.end(closeBackendError)
		return errEnded
	}
	if err := d.flush(); err != nil {
		return err
	}
	d.hold(n)
	if !done {
		return nil
	}
	text := p.held
	if p.replies.Kind() == '+' && string(p.replies.Line()) == "OK" {
		text = textExecAbort
		s.stickyEnded.Store(s.stickies.Load()) // the session's reader waits in await, and adds no more stickies
	}
	d.count() // before the write, so that no reply is written that is not counted
	err := p.turn.write(text)
	s.dropHeld()
	if p.replies.Kind() == '-' && strings.HasPrefix(string(p.replies.Line()), "NOPERM") {
		s.decide(outcomeRefused)
	} else {
		s.decide(outcomeDone)
	}
	return err
}

// hold keeps the next n bytes in pump.held instead of passing them on.
func (d *relaying) hold(n int) {
	d.s.pump.held = append(d.s.pump.held, d.b[d.i:d.i+n]...)
	d.s.account().Hold(int64(n))
	d.i += n
	d.start = d.i
}

// special handles a whole reply that may be the one for which the session's reader waits in await: that to RESET, to QUIT or
// to an EXEC that runs QUIT. If replies are not counted, it must find that reply among all others.
func (d *relaying) special() error {
	s, p, q := d.s, &d.s.pump, &d.s.queue
	p.mu.Lock()
	a, decided := p.awaited, p.outcome != outcomeNone
	p.mu.Unlock()
	kind, line := p.replies.Kind(), p.replies.Line()
	isReset := (a == awaitReset || a == awaitFutileReset) && kind == '+' && string(line) == "RESET"
	isQueued := a == awaitQuit && kind == '+' && string(line) == "QUEUED"
	if q.uncounted() {
		if a == awaitNothing || a == awaitReplies || decided || !isReset && !isQueued && !(kind == '-' && mayRefuse(line)) {
			return nil
		}
	} else {
		if q.run.note != nil {
			s.noted(q.run.note, &p.replies)
		}
		d.count()
	}
	if err := d.flush(); err != nil {
		return err
	}
	switch {
	case isReset:
		return d.resetDone()
	case a == awaitReset:
		return d.resetRefused()
	case isQueued:
		s.decide(outcomeQueued)
	case kind == '-', a == awaitFutileReset, a == awaitExec && (kind != '*' || p.replies.Null()):
		s.decide(outcomeRefused)
	default:
		s.decide(outcomeDone)
	}
	return nil
}

// mayRefuse reports whether an error that came while replies are not counted is one that RESET and QUIT themselves can get.
// Any other belongs to an earlier command.
func mayRefuse(line []byte) bool {
	return bytes.HasPrefix(line, []byte("NOPERM")) || bytes.HasPrefix(line, []byte("ERR wrong number of arguments for 'reset'"))
}

// decide tells the session's reader the outcome of what it awaits. relay wakes the reader when it settles.
func (s *session) decide(o outcome) {
	s.pump.mu.Lock()
	s.pump.outcome = o
	s.pump.mu.Unlock()
}

// unasked ends the session because of a reply that nobody asked for, which begins rest. It passes that reply on if it is an
// error, since it may be what the backend says before it closes.
func (s *session) unasked(rest []byte) error {
	if rest[0] == '-' {
		var r resp.Replies
		if n, done, err := r.Next(rest); done && err == nil {
			_ = s.pump.turn.write(rest[:n])
		}
	}
	s.end(closeBackendError)
	return errEnded
}
