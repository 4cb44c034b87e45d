package lane

// MaxReply is the number of bytes, or of elements, above which a reply is big: its session moves to its own connection for a
// while.
const MaxReply = 1 << 20

// noteBig is called once for a reply above MaxReply. It moves the reply's session to its own connection for a while, and
// opens another lane for the other sessions. If nothing of the reply was handed over yet (beginning) and others wait behind
// it, noteBig also drops the reply and has the session send the command again over its own connection, if that is possible.
func (l *Lane) noteBig(beginning bool) {
	r := &l.in
	r.noted = true
	s := r.cur.seat
	if s == nil || r.dropped {
		return
	}
	s.Rider.Big()
	l.mu.Lock()
	l.pulse.big = true
	l.judgePulseLocked(l.set.all.c.Now())
	l.mu.Unlock()
	l.set.openIf(func() bool { return len(l.set.lanes()) < l.set.most && l.set.least() == l }) // unless a less loaded one is open
	if beginning && !r.half && !r.cur.tx && r.cur.n == 1 && l.othersWait(s) {
		l.mu.Lock()
		frame := s.askedAlone()
		l.mu.Unlock()
		if frame != nil {
			r.dropped = s.Rider.WantResend(frame, false)
		}
	}
}

// askedAlone returns a copy of the only command that the session has in flight, or nil if there are others or the command may
// not be sent again. The caller must hold the mu of the lane that it is in flight on.
func (s *Seat) askedAlone() []byte {
	if s.frameLen == 0 || s.commands.Load() != 1 {
		return nil
	}
	return append([]byte(nil), s.frame[:s.frameLen]...)
}

// othersWait reports whether another session than s has commands in flight after the current slot.
func (l *Lane) othersWait(s *Seat) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots.Len() {
		if o := l.slots.At(i); o.seat != nil && o.seat != s && !o.resent {
			return true
		}
	}
	return false
}
