package lane

import (
	"bytes"
	"cmp"
	"errors"
	"strings"
	"sync"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/resp"
)

var (
	errUnasked = errors.New("a reply to nothing that was asked")
	errPush    = errors.New("a push where none may be, or a huge one")
	errNonce   = errors.New("a nonce did not return in its place")
	errFraming = errors.New("the backend lost the framing of the commands")
	errExec    = errors.New("a transaction that was neither run nor discarded")
	errPanic   = errors.New("a panic")

	// Dragonfly sends this error for a command that threw an exception, maybe after that command's reply, and closes the
	// connection: neither this error nor anything after it can be matched to a command.
	errInternal = errors.New("the backend had an internal error")
)

// reader holds what the lane's reader goroutine owns.
type reader struct {
	replies resp.Replies
	cur     slot   // the slot whose replies are arriving
	left    int    // replies of cur that are still to come
	open    bool   // cur still counts as in flight
	half    bool   // the beginning of a reply was handed to cur's session, and its end is still to come
	size    int64  // bytes so far of the reply that is arriving
	noted   bool   // noteBig was called for this reply
	dropped bool   // this reply is dropped: its command is sent again over the session's own connection
	push    bool   // the frame that is arriving is a push, see skipPush
	nonce   []byte // the reply to a nonce, as far as it has come
	ready   []Turn // of sessions that got replies while nobody was writing to their clients
}

// read is the lane's reader goroutine: it hands replies to their sessions. Anything that shows that replies may be out of
// order closes the lane and every session with a command in flight on it.
func (l *Lane) read() {
	var cause error
	defer l.set.all.c.Running.Done()
	defer func() {
		if v := recover(); v != nil {
			l.set.all.c.Panicked(v)
			l.poison()
			cause = errPanic
		}
		l.conclude(cause)
	}()
	for cause == nil {
		cause = l.takeIn()
	}
}

// takeIn waits for bytes of the backend once and delivers them. After an error the lane's reader must end.
func (l *Lane) takeIn() error {
	b, k, err := l.up.Receive()
	defer l.up.Free(k)
	defer l.writeReady()
	if len(b) > 0 {
		if cause := l.deliver(b); cause != nil {
			if !errors.Is(cause, errInternal) {
				l.poison()
			}
			return cause
		}
	}
	return err
}

// deliver hands the bytes that one read brought to the sessions, the replies to one slot at a time. An error other than
// errInternal means that replies may be out of order. hot
func (l *Lane) deliver(b []byte) error {
	r := &l.in
	now := l.set.all.c.Now()
	start, whole := 0, 0 // b[start:i] is not handed over yet: whole replies of cur, and the beginning of one
	for i := 0; i < len(b); {
		if r.push || b[i] == '>' && !r.replies.Open() {
			if err := l.hand(b[start:i], whole, now); err != nil {
				return err
			}
			n, err := l.skipPush(b[i:], now)
			if err != nil {
				return err
			}
			i += n
			start, whole = i, 0
			continue
		}
		if r.left == 0 && !l.next(now, true) {
			return errUnasked
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
		if !r.noted && (r.size > MaxReply || r.replies.Open() && r.replies.Len() > MaxReply) {
			l.noteBig(r.size == int64(n))
		}
		if !done {
			break
		}
		if kind := r.replies.Kind(); kind == '-' || kind == '>' || r.cur.tx {
			if err := l.judge(); errors.Is(err, errInternal) {
				return cmp.Or(l.hand(b[start:i-n], whole, now), err)
			} else if err != nil {
				return err // the reply's session is still in flight, and ends with the others
			}
		}
		if whole, r.left = whole+1, r.left-1; r.left == 0 {
			if err := l.hand(b[start:i], whole, now); err != nil {
				return err
			}
			start, whole = i, 0
		}
	}
	if err := l.hand(b[start:], whole, now); err != nil {
		return err
	}
	if r.left > 0 {
		l.heard.Store(now)
	} else if r.open {
		l.next(now, false)
	}
	return nil
}

// next ends the run of the current slot, whose replies have all arrived, and gives its room back, unless that was done before. If more
// is set, further bytes have come: next moves on to the slot whose reply they begin, and returns false if no reply is owed: there is no
// slot, or the commands of the first one were not passed to a write yet. Otherwise it closes the lane if that is retired and owes nothing
// more. hot
func (l *Lane) next(now clock.Instant, more bool) bool {
	r, over := &l.in, false
	l.mu.Lock()
	defer func() {
		l.mu.Unlock()
		if over {
			l.up.Close()
		}
	}()
	if r.open {
		r.open, l.pulse.big = false, false
		if s := r.cur.seat; s != nil {
			if now.Sub(max(l.pulse.replied, r.cur.sent)) > l.up.Trip+l.set.all.c.SlowCommand {
				s.noteSlow(now)
			}
			l.pulse.finished(r.cur.n, r.cur.sent, now)
			l.commands -= r.cur.n
			l.bytes -= r.cur.bytes
			s.count(-r.cur.n, -r.cur.bytes)
			l.loadLocked()
			l.wakeWaiterLocked()
		}
		l.pulse.replied = now
		r.cur = slot{}
		if l.held.Load() || l.abandoned.Load() != 0 {
			l.easeLocked()
		}
		if now >= l.pulse.due {
			l.judgePulseLocked(now)
		}
		if l.commands == 0 {
			l.pulse.idleSince = now
		}
	}
	if !more {
		over = l.overLocked()
		return false
	}
	if l.slots.Len() == 0 || l.slots.At(0).at >= l.passed {
		return false
	}
	r.cur = l.slots.Pop()
	r.left, r.open, r.half, r.dropped = r.cur.n, true, false, r.cur.resent
	return true
}

// judge inspects a reply that has arrived whole, and returns an error if the lane cannot go on after it. It finds nothing in a reply that is
// neither an error nor a push and does not belong to a transaction.
func (l *Lane) judge() error {
	r := &l.in
	kind := r.replies.Kind()
	if kind == '>' {
		return errPush
	}
	if kind == '-' {
		line := r.replies.Line()
		if bytes.HasPrefix(line, []byte("ERR Protocol error")) {
			return errFraming
		}
		if bytes.HasPrefix(line, []byte("ERR Internal Error")) {
			return errInternal
		}
		if backend.AnswersAsReplica(line) {
			l.set.all.Suspect(l.up)
		}
	}
	if r.replies.Found() && r.cur.tx && r.left == 1 { // a command of the transaction was answered so
		l.set.all.Suspect(l.up)
	}
	if r.cur.tx && r.left == 1 && !backend.EndsTransaction(&r.replies) {
		return errExec
	}
	return nil
}

// hand gives b to the session of the current slot. b holds as many whole replies as whole says, and maybe the beginning of
// another. hand checks the reply to a nonce itself, and drops a reply whose command is sent again. hot
func (l *Lane) hand(b []byte, whole int, now clock.Instant) error {
	r := &l.in
	s := r.cur.seat
	switch {
	case len(b) == 0:
		return nil
	case s == nil:
		return l.nonceCame(b, whole)
	case r.dropped:
		r.dropped = whole == 0
		return nil
	}
	r.half = r.replies.Open()
	slow, turn := s.Rider.Receive(b, whole, r.half, now)
	if turn != nil {
		r.ready = append(r.ready, turn)
	}
	if slow {
		l.writeReady()
		// Waiting delays only the sessions in flight on this lane: it takes no new work.
		l.Retire()
		s.Rider.Follow(func() bool { return l.othersWait(s) })
	}
	return nil
}

// nonceCame collects the reply to a nonce, and returns errNonce if it is not the one that is due. whole is 1 if b ends it.
func (l *Lane) nonceCame(b []byte, whole int) error {
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
		return errNonce
	}
	if whole == 1 {
		r.nonce = r.nonce[:0]
	}
	return nil
}

// skipPush drops the bytes of a push at the beginning of b, which may be the first or a later part of it, and returns their
// number. No command on a lane causes pushes, so another client has redirected its CLIENT TRACKING to this connection, which
// Redis allows with RESP3 only. A whole push between two replies leaves their order as it was, and the sessions on the lane
// go on. With RESP2, and for a push above backend.MaxPush, it returns errPush.
func (l *Lane) skipPush(b []byte, now clock.Instant) (n int, err error) {
	r := &l.in
	if !r.push {
		r.push, r.size = true, 0
		if r.open && r.left == 0 {
			l.next(now, false) // a session that has all its replies is not in flight if the push closes the lane
		}
		if !l.set.key.RESP3 {
			return 0, errPush
		}
		l.notePush()
	}
	n, done, err := r.replies.Next(b)
	if err != nil {
		return n, err
	}
	if r.size += int64(n); r.size > backend.MaxPush {
		return n, errPush
	}
	r.push = !done
	return n, nil
}

// notePush marks the lane for replacement by renew, and logs that once for each lane.
func (l *Lane) notePush() {
	if l.pushed.Swap(true) {
		return
	}
	l.set.all.c.Backend.Count("push")
	l.set.all.c.Log.Warn().Str("backend", l.set.all.c.Backend.URL()).Msg("another client redirects its CLIENT TRACKING to a shared connection: its pushes are dropped, and the connection is replaced")
}

// writeShare is how many clients one goroutine writes to, one after the other. If replies came for more clients, helpers
// share the work.
const writeShare = 8

// writeReady writes to the clients for which the last read brought replies: it uses the turns in ready, each once. hot
func (l *Lane) writeReady() {
	ready := l.in.ready
	for len(ready) > writeShare {
		h, _ := helpers.Get().(*helper)
		if h == nil {
			h = new(helper)
			h.run = h.write
		}
		h.n = copy(h.turns[:], ready)
		ready = ready[h.n:]
		go h.run() // ends once it has written; nobody waits for it, but the sessions wait for their writers
	}
	for _, t := range ready {
		t.DrainNow()
	}
	clear(l.in.ready)
	l.in.ready = l.in.ready[:0]
}

// helper is a goroutine that writes to some of the clients, and returns to the pool when it is done.
type helper struct {
	turns [writeShare]Turn
	n     int
	run   func() // write, kept: a method value made for each go statement would allocate
}

var helpers sync.Pool

func (h *helper) write() {
	for i, t := range h.turns[:h.n] {
		h.turns[i] = nil
		t.DrainNow()
	}
	helpers.Put(h)
}
