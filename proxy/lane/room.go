package lane

// roomLocked reports whether a batch of this size fits into the lane's window and no other session is before s in the queue.
// Otherwise s has a place in the queue when it returns.
func (l *Lane) roomLocked(s *Seat, commands, bytes int) bool {
	first := l.waiters.Front()
	if (first == nil || first == s.place) && l.fitsLocked(commands, bytes) {
		l.leaveWaitersLocked(s)
		return true
	}
	if s.place == nil {
		s.place = l.waiters.PushBack(s)
	} else {
		l.waiting -= int(s.wantCommands)
	}
	s.wantCommands, s.wantBytes, s.woken = int32(commands), int32(bytes), false
	l.waiting += commands
	l.loadLocked()
	return false
}

// leaveWaitersLocked takes s out of the queue, if it is in it.
func (l *Lane) leaveWaitersLocked(s *Seat) {
	if s.place == nil {
		return
	}
	l.waiters.Remove(s.place)
	s.place = nil
	l.waiting -= int(s.wantCommands)
	l.loadLocked()
}

// fitsLocked reports whether the window has room for a batch. A batch of any size fits into an empty lane.
func (l *Lane) fitsLocked(commands, bytes int) bool {
	return l.commands == 0 || l.commands+commands <= MaxCommands && l.bytes+bytes <= MaxBytes
}

// Waits reports whether the session has a place in the queue.
func (l *Lane) Waits(s *Seat) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.place != nil
}

// StopWaiting takes the session out of the queue, if it is still in it, and wakes the next one if there is room for that.
func (l *Lane) StopWaiting(s *Seat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveWaitersLocked(s)
	l.wakeWaiterLocked()
}

// wakeWaiterLocked wakes the first session in the queue if there is room for its batch. The session keeps its place until it
// submits again. hot
func (l *Lane) wakeWaiterLocked() {
	if l.waiters.Len() > 0 {
		l.wakeFirstLocked()
	}
}

// wakeFirstLocked is wakeWaiterLocked for a queue that is not empty.
func (l *Lane) wakeFirstLocked() {
	s := l.waiters.Front().Value.(*Seat)
	if !s.woken && l.fitsLocked(int(s.wantCommands), int(s.wantBytes)) {
		s.woken = true
		s.Rider.HasRoom()
	}
}

// dismiss empties the queue: each session in it wakes and chooses a lane again.
func (l *Lane) dismiss() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dismissLocked()
}

func (l *Lane) dismissLocked() {
	for first := l.waiters.Front(); first != nil; first = l.waiters.Front() {
		s := first.Value.(*Seat)
		l.leaveWaitersLocked(s)
		s.Rider.HasRoom()
	}
}
