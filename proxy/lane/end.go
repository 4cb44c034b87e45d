package lane

// poison closes the lane. The lane's reader then closes every session that has a command in flight on it (conclude).
func (l *Lane) poison() {
	l.mu.Lock()
	l.poisoned = true
	l.state = max(l.state, failed)
	l.mu.Unlock()
	l.up.Close()
}

// Retire stops the lane from taking new work. It closes the lane at once if nothing is in flight; otherwise the lane closes
// after its last reply.
func (l *Lane) Retire() {
	l.mu.Lock()
	if l.state == open {
		l.state = retired
	}
	over := l.overLocked()
	l.dismissLocked()
	l.mu.Unlock()
	l.set.remove(l)
	if over {
		l.up.Close()
	}
}

// Close closes the lane at once. Commands in flight are answered as if the backend had closed it.
func (l *Lane) Close() {
	l.Retire()
	l.up.Close()
}

// lost is a slot whose replies will not come.
type lost struct {
	slot
	again []byte // the command, if it may be sent again
}

// conclude ends the lane. Sessions with commands in flight learn that their replies are lost (Rider.Lose). If the lane is
// poisoned, all of them are closed instead (Rider.Cut), and in any case one that has received half a reply. The lane's reader
// calls it last.
func (l *Lane) conclude(cause error) {
	l.mu.Lock()
	l.state = closed
	poisoned := l.poisoned
	left := l.leftLocked()
	l.dismissLocked()
	l.out, l.spare = output{}, output{}
	l.slots.Drop()
	l.countLocked()
	l.mu.Unlock()
	l.up.Drop()
	close(l.closed)
	l.set.remove(l)
	l.set.all.live.Delete(l)
	l.set.all.count.Add(-1)
	if poisoned {
		l.set.all.c.Backend.Count("lane")
		l.set.all.c.Log.Warn().Str("backend", l.set.all.c.Backend.URL()).Stringer("address", l.up.Socket.RemoteAddr()).
			AnErr("cause", cause).Int("in_flight", len(left)).Msg("lane closed: replies may be out of place")
	} else if len(left) > 0 {
		l.set.all.c.Backend.Count("lost")
	}
	for i, s := range left {
		switch {
		case s.seat == nil:
		case poisoned, i == 0 && l.in.half:
			s.seat.Rider.Cut()
		default:
			s.seat.Rider.Lose(s.again)
		}
	}
}

// leftLocked removes and returns the slots of the replies that did not come, and takes them out of what their sessions have
// in flight.
func (l *Lane) leftLocked() []lost {
	left := make([]lost, 0, l.slots.Len()+1)
	current := l.in.open // l.in.left is 0 only after a panic, or after a nonce that was wrong
	if current {
		left = append(left, lost{slot: l.in.cur})
	}
	for l.slots.Len() > 0 {
		left = append(left, lost{slot: l.slots.Pop()})
	}
	for i, s := range left {
		switch {
		case s.seat == nil:
			continue
		case s.resent:
			left[i].seat = nil // as below; the session may be submitting to another lane by now
		case i == 0 && current && l.in.dropped: // the session's own connection answers the command
		default:
			left[i].again = s.seat.askedAlone()
		}
		s.seat.count(-s.n, -s.bytes)
	}
	if current {
		left[0].n = l.in.left
	}
	if current && l.in.dropped {
		left[0].seat = nil // the session's own connection answers the command
	}
	return left
}
