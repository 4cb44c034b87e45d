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

	// Dragonfly says so of a command that threw, maybe behind its reply, and closes the connection: from there on nothing
	// that comes belongs to anybody.
	errLaneInternal = errors.New("the backend had an internal error")
)

// read is the reader goroutine: it hands replies to their sessions. Whatever shows that replies may be out of place
// closes the lane and everybody in flight on it.
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

// takeIn waits for the backend once, and delivers what it said. An error is the last.
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

// deliver hands what was read to the sessions, a run at a time. hot
func (l *lane) deliver(b []byte) error {
	r := &l.in
	now := l.set.server.now()
	start, whole := 0, 0 // b[start:i] is whole replies of the run and the beginning of one
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
			return err // its session is in flight still, and ends with the others
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

// next goes on to the slot whose replies come now. What was not yet written is owed none. hot
func (l *lane) next(now int64) bool {
	r := &l.in
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finishRunLocked(now)
	if l.slots.len() == 0 || l.slots.at(0).at >= l.passed {
		return false
	}
	r.cur = l.slots.pop()
	r.left, r.open, r.half = r.cur.n, true, false
	return true
}

// finishRun gives back the room of a run whose replies have all come. hot
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

// judge looks at a reply that is whole. hot
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

// isExecAbort reports whether line is the error of an EXEC after which no transaction is open and no key is watched.
func isExecAbort(line []byte) bool {
	return strings.TrimSuffix(string(line), ".") == "EXECABORT Transaction discarded because of previous errors" ||
		strings.HasPrefix(string(line), backend.ExecRefused) || isElsewhere(line)
}

// elsewhere are the words of a Redis cluster for keys that this node does not serve now, or not together. A node that
// says so to EXEC has discarded the transaction (processCommand in server.c, since Redis 3.2).
var elsewhere = []string{"CROSSSLOT ", "MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN "}

func isElsewhere(line []byte) bool {
	return slices.ContainsFunc(elsewhere, func(word string) bool { return strings.HasPrefix(string(line), word) })
}

// hand gives bytes of the current run to whom they belong. hot
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

func (l *lane) nonceCame(b []byte, whole int) error {
	r := &l.in
	r.nonce = append(r.nonce, b...)
	if r.nonce[0] == '-' && (whole == 0 || strings.HasPrefix(string(r.nonce), "-BUSY ")) {
		if whole == 1 { // a script runs for long: this one shows nothing, the next batch carries another
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

// noteBig: a session that asks for so much uses its own connection for a while, and the others find another lane while this
// one carries the reply. At the beginning of the reply, while others wait behind it, even this command goes over the
// session's own connection, if it may: then nobody waits for this client.
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

// askedAlone is the only command that the session has in flight, if it may be asked again.
func (l *lane) askedAlone(s *session) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.resendLen == 0 || s.onLane.commands.Load() != 1 {
		return nil
	}
	return append([]byte(nil), s.resendFrame[:s.resendLen]...)
}

// follow waits while a client does not take what came for it, which costs only those who wait on this lane: the lane takes
// no new work, and this session uses its own connection for good. Where others wait it is closed once they have waited for
// followTimeout in all.
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

func (l *lane) othersWait(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots.len() {
		if o := l.slots.at(i).session; o != nil && o != s {
			return true
		}
	}
	return false
}

// conclude ends the lane: whoever waits for a reply of it learns so. The reader calls it last.
func (l *lane) conclude(cause error) {
	l.mu.Lock()
	l.state = laneClosed
	poisoned := l.poisoned
	left := make([]laneSlot, 0, l.slots.len()+1)
	current := l.in.open // with nothing left behind a panic only
	if current {
		left = append(left, l.in.cur)
	}
	for l.slots.len() > 0 {
		left = append(left, l.slots.pop())
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
		left[0].session = nil // its own connection answers it
	}
	l.dismissLocked()
	l.out, l.spare = laneOut{}, laneOut{}
	l.slots.drop()
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
