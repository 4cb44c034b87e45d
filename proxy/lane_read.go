package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

var (
	errLaneUnasked = errors.New("a reply to nothing that was asked")
	errLanePush    = errors.New("a push where none may be, or a huge one")
	errLaneNonce   = errors.New("a nonce did not return in its place")
	errLaneFraming = errors.New("the backend lost the framing of the commands")
	errLaneExec    = errors.New("a transaction that was neither run nor discarded")
	errLanePanic   = errors.New("a panic")

	// Dragonfly sends this error for a command that threw an exception, maybe after that command's reply, and closes the
	// connection: neither this error nor anything after it can be matched to a command.
	errLaneInternal = errors.New("the backend had an internal error")
)

// read is the lane's reader goroutine: it hands replies to their sessions. Anything that shows that replies may be out of
// order closes the lane and every session with a command in flight on it.
func (l *lane) read() {
	var cause error
	defer l.set.server.running.Done()
	defer func() {
		if v := recover(); v != nil {
			l.set.server.lanePanic(v)
			l.poison()
			cause = errLanePanic
		}
		l.conclude(cause)
	}()
	for cause == nil {
		cause = l.takeIn()
	}
}

// takeIn waits for bytes of the backend once and delivers them. After an error the lane's reader must end.
func (l *lane) takeIn() error {
	b, k, err := l.up.Receive()
	defer l.up.Free(k)
	defer l.drainReady()
	if len(b) > 0 {
		if cause := l.deliver(b); cause != nil {
			if !errors.Is(cause, errLaneInternal) {
				l.poison()
			}
			return cause
		}
	}
	return err
}

// deliver hands the bytes that one read brought to the sessions, the replies to one slot at a time. An error other than
// errLaneInternal means that replies may be out of order. hot
func (l *lane) deliver(b []byte) error {
	r := &l.in
	now := l.set.server.now()
	start, whole := 0, 0 // b[start:i] is not handed over yet: whole replies of cur, and the beginning of one
	for i := 0; i < len(b); {
		if r.push || b[i] == '>' && !r.replies.Open() {
			if start < i {
				if err := l.hand(b[start:i], whole, now); err != nil {
					return err
				}
			}
			n, err := l.skipPush(b[i:], now)
			if err != nil {
				return err
			}
			i += n
			start, whole = i, 0
			continue
		}
		if r.left == 0 && !l.next(now) {
			return errLaneUnasked
		}
		if !r.replies.Open() {
			r.size, r.noted = 0, false
		}
		n, done, err := r.replies.Next(b[i:])
		if err != nil {
			return err
		}
		i += n
		r.size += int64(n)
		if !r.noted && (r.size > maxLaneReply || r.replies.Open() && r.replies.Len() > maxLaneReply) {
			l.noteBig(r.size == int64(n))
		}
		if !done {
			break
		}
		if err := l.judge(); err != nil {
			if before := b[start : i-n]; errors.Is(err, errLaneInternal) && len(before) > 0 {
				return cmp.Or(l.hand(before, whole, now), err)
			}
			return err // the reply's session is still in flight, and ends with the others
		}
		whole++
		r.left--
		if r.left == 0 {
			if err := l.hand(b[start:i], whole, now); err != nil {
				return err
			}
			start, whole = i, 0
		}
	}
	if start < len(b) {
		if err := l.hand(b[start:], whole, now); err != nil {
			return err
		}
	}
	l.finishRun(now)
	return nil
}

// next moves on to the slot whose replies are arriving. It returns false if no reply is owed: there is no slot, or the
// commands of the first one were not passed to a write yet. hot
func (l *lane) next(now int64) bool {
	r := &l.in
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finishRunLocked(now)
	if l.slots.Len() == 0 || l.slots.At(0).at >= l.passed {
		return false
	}
	r.cur = l.slots.Pop()
	r.left, r.open, r.half = r.cur.n, true, false
	return true
}

// finishRun gives back the room of the current slot once all its replies have arrived, and closes a retired lane that owes
// nothing more. hot
func (l *lane) finishRun(now int64) {
	if !l.in.open || l.in.left > 0 {
		return
	}
	l.mu.Lock()
	l.finishRunLocked(now)
	done := l.state == laneRetired && l.idleLocked()
	l.mu.Unlock()
	if done {
		l.up.Close()
	}
}

// finishRunLocked gives back the room of the current slot, unless that was done before. All its replies must have arrived.
func (l *lane) finishRunLocked(now int64) {
	r := &l.in
	if !r.open {
		return
	}
	r.open, l.big = false, false
	if s := r.cur.session; s != nil {
		if now-max(l.replied, r.cur.sent) > int64(l.up.Trip+l.set.server.c.slowCommand) {
			s.noteSlow(now)
		}
		l.pulse.finished(r.cur.n, r.cur.sent, now)
		l.commands -= r.cur.n
		l.bytes -= r.cur.bytes
		s.onLane.add(-r.cur.n, -r.cur.bytes)
		l.loadLocked()
		l.wakeWaiterLocked()
	}
	l.replied = now
	r.cur = laneSlot{}
	l.judgePulseLocked(now)
	if l.commands == 0 {
		l.idleSince = now
	}
}

// judge inspects a reply that has arrived whole, and returns an error if the lane cannot go on after it. hot
func (l *lane) judge() error {
	r := &l.in
	kind := r.replies.Kind()
	if kind == '>' {
		return errLanePush
	}
	if kind == '-' {
		line := r.replies.Line()
		if bytes.HasPrefix(line, []byte("ERR Protocol error")) {
			return errLaneFraming
		}
		if bytes.HasPrefix(line, []byte("ERR Internal Error")) {
			return errLaneInternal
		}
		if bytes.HasPrefix(line, []byte("READONLY")) {
			l.set.server.backend.Suspect()
		}
	}
	if r.cur.tx && r.left == 1 && kind != '*' && !r.replies.Null() {
		if kind != '-' || !isExecAbort(r.replies.Line()) {
			return errLaneExec
		}
	}
	return nil
}

// isExecAbort reports whether line is an error of EXEC after which no transaction is open and no key is watched.
func isExecAbort(line []byte) bool {
	return strings.TrimSuffix(string(line), ".") == "EXECABORT Transaction discarded because of previous errors" ||
		strings.HasPrefix(string(line), backend.ExecRefused) || isElsewhere(line)
}

// elsewhere lists how the errors of a Redis cluster begin for keys that this node does not serve now, or not together. A node
// that answers EXEC with one of them has discarded the transaction (processCommand in server.c, since Redis 3.2).
var elsewhere = []string{"CROSSSLOT ", "MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN "}

func isElsewhere(line []byte) bool {
	return slices.ContainsFunc(elsewhere, func(word string) bool { return strings.HasPrefix(string(line), word) })
}

// hand gives b to the session of the current slot. b holds as many whole replies as whole says, and maybe the beginning of
// another. hand checks the reply to a nonce itself, and drops a reply whose command is sent again. hot
func (l *lane) hand(b []byte, whole int, now int64) error {
	r := &l.in
	s := r.cur.session
	switch {
	case s == nil:
		return l.nonceCame(b, whole)
	case r.dropped:
		r.dropped = whole == 0
		return nil
	}
	r.half = r.replies.Open()
	unsent, turn := s.receive(b, whole, r.half, now)
	if turn.held() {
		r.ready = append(r.ready, turn)
	}
	if unsent > netio.MinBudget && int64(unsent) > s.account().Budget(l.set.server.c.SessionBuffer) {
		l.drainReady()
		l.follow(s)
	}
	return nil
}

// nonceCame collects the reply to a nonce, and returns errLaneNonce if it is not the one that is due. whole is 1 if b ends
// it.
func (l *lane) nonceCame(b []byte, whole int) error {
	r := &l.in
	r.nonce = append(r.nonce, b...)
	if r.nonce[0] == '-' && (whole == 0 || strings.HasPrefix(string(r.nonce), "-BUSY ")) {
		if whole == 1 { // -BUSY, a script is running: this nonce proves nothing, so the next batch carries another
			r.nonce = r.nonce[:0]
			l.mu.Lock()
			l.unnonced = nonceCommands
			l.mu.Unlock()
		}
		return nil
	}
	var room [32]byte
	want := backend.AppendNonceReply(room[:0], r.cur.nonce)
	if len(r.nonce) > len(want) || whole == 1 && !bytes.Equal(r.nonce, want) {
		return errLaneNonce
	}
	if whole == 1 {
		r.nonce = r.nonce[:0]
	}
	return nil
}

// noteBig is called once for a reply above maxLaneReply. It moves the reply's session to its own connection for ownAfterBig,
// and opens another lane for the other sessions. If nothing of the reply was handed over yet (beginning) and others wait
// behind it, noteBig also drops the reply and has the session send the command again over its own connection, if that is
// possible.
func (l *lane) noteBig(beginning bool) {
	r := &l.in
	r.noted = true
	s := r.cur.session
	if s == nil {
		return
	}
	if s.ownUntil.Load() != forGood {
		s.ownUntil.Store(l.set.server.now() + int64(l.set.server.c.ownAfterBig))
	}
	l.mu.Lock()
	l.big = true
	l.judgePulseLocked(l.set.server.now())
	l.mu.Unlock()
	l.set.openAnother(l)
	if beginning && !r.half && !r.cur.tx && r.cur.n == 1 && l.othersWait(s) {
		if frame := l.askedAlone(s); frame != nil {
			r.dropped = s.wantResend(frame)
		}
	}
}

// askedAlone returns a copy of the only command that the session has in flight, or nil if there are others or the command may
// not be sent again.
func (l *lane) askedAlone(s *session) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.resendLen == 0 || s.onLane.commands.Load() != 1 {
		return nil
	}
	return append([]byte(nil), s.resendFrame[:s.resendLen]...)
}

// follow makes the lane's reader wait while a client does not take its replies. That delays only the sessions in flight on
// this lane, because follow retires the lane, and it moves this session to its own connection for good. If others wait on the
// lane, the session is closed once its lanes have waited for it for followTimeout in all.
func (l *lane) follow(s *session) {
	followTimeout := l.set.server.c.followTimeout
	q := &s.queue
	s.ownUntil.Store(forGood)
	l.retire()
	q.mu.Lock()
	defer q.mu.Unlock()
	now := l.set.server.now
	since := now() - s.followed
	defer func() { s.followed = now() - since }()
	for !q.closed && q.out.unsent > q.out.budget()/2 {
		t := time.AfterFunc(followTimeout/4, q.notify)
		q.changed.Wait()
		t.Stop()
		if now()-since < int64(followTimeout) || q.closed {
			continue
		}
		q.mu.Unlock()
		if l.othersWait(s) {
			s.kill(closeSlow)
		}
		q.mu.Lock()
	}
}

// othersWait reports whether another session than s has commands in flight after the current slot.
func (l *lane) othersWait(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots.Len() {
		if o := l.slots.At(i).session; o != nil && o != s {
			return true
		}
	}
	return false
}

// conclude ends the lane. Commands in flight are answered by errors (session.lose). Instead, every session with one is closed
// if the lane is poisoned, and in any case a session that has received half a reply. The lane's reader calls it last.
func (l *lane) conclude(cause error) {
	l.mu.Lock()
	l.state = laneClosed
	poisoned := l.poisoned
	left := make([]laneSlot, 0, l.slots.Len()+1)
	current := l.in.open // l.in.left is 0 only after a panic, or after a nonce that was wrong
	if current {
		left = append(left, l.in.cur)
	}
	for l.slots.Len() > 0 {
		left = append(left, l.slots.Pop())
	}
	passed := l.passed
	for _, s := range left {
		if s.session != nil {
			s.session.onLane.add(-s.n, -s.bytes)
		}
	}
	if current {
		left[0].n = l.in.left
	}
	if current && l.in.dropped {
		left[0].session = nil // the session's own connection answers the command
	}
	l.dismissLocked()
	l.out, l.spare = laneOut{}, laneOut{}
	l.slots.Drop()
	l.countLocked()
	l.mu.Unlock()
	l.up.Drop()
	close(l.closed)
	l.set.remove(l)
	l.set.server.lanes.live.remove(l)
	l.set.server.openLanes.Add(-1)
	if poisoned {
		l.set.server.backend.Count("lane")
		l.set.server.log.Warn().AnErr("cause", cause).Int("in_flight", len(left)).Msg("lane closed: replies may be out of place")
	} else if len(left) > 0 {
		l.set.server.backend.Count("lost")
	}
	for i, s := range left {
		switch {
		case s.session == nil:
		case poisoned, i == 0 && l.in.half:
			s.session.end(closeLane)
		default:
			s.session.lose(s.n, s.at < passed)
		}
	}
}
