package proxy

import "container/list"

// waiter is a session's place in the queue for room on a lane, with the size of the batch that waits. A session has one and
// waits for one lane at a time; the mu of that lane guards it.
type waiter struct {
	place    *list.Element // in lane.waiters; nil if the session does not wait
	session  *session
	commands int
	bytes    int
	woken    bool
}

// roomLocked reports whether a batch of this size fits into the lane's window and no other session is before s in the queue.
// Otherwise s has a place in the queue when it returns. hot
func (l *lane) roomLocked(s *session, commands, bytes int) bool {
	w := &s.waiter
	first := l.waiters.Front()
	if (first == nil || first == w.place) && l.fitsLocked(commands, bytes) {
		l.leaveWaitersLocked(w)
		return true
	}
	if w.place == nil {
		w.place = l.waiters.PushBack(w)
	} else {
		l.waiting -= w.commands
	}
	w.session, w.commands, w.bytes, w.woken = s, commands, bytes, false
	l.waiting += commands
	l.loadLocked()
	return false
}

// leaveWaitersLocked takes w out of the queue, if it is in it.
func (l *lane) leaveWaitersLocked(w *waiter) {
	if w.place == nil {
		return
	}
	l.waiters.Remove(w.place)
	w.place = nil
	l.waiting -= w.commands
	l.loadLocked()
}

// fitsLocked reports whether the window has room for a batch. A batch of any size fits into an empty lane.
func (l *lane) fitsLocked(commands, bytes int) bool {
	return l.commands == 0 || l.commands+commands <= laneCommands && l.bytes+bytes <= laneBytes
}

// waits reports whether s has a place in the queue.
func (l *lane) waits(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.waiter.place != nil
}

// stopWaiting takes s out of the queue, if it is still in it, and wakes the next session if there is room for that.
func (l *lane) stopWaiting(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveWaitersLocked(&s.waiter)
	l.wakeWaiterLocked()
}

// wakeWaiterLocked wakes the first session in the queue if there is room for its batch. The session keeps its place until it
// submits again. hot
func (l *lane) wakeWaiterLocked() {
	first := l.waiters.Front()
	if first == nil {
		return
	}
	if w := first.Value.(*waiter); !w.woken && l.fitsLocked(w.commands, w.bytes) {
		w.woken = true
		w.session.hasRoom()
	}
}

// dismiss empties the queue: each session in it wakes and chooses a lane again.
func (l *lane) dismiss() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dismissLocked()
}

func (l *lane) dismissLocked() {
	for first := l.waiters.Front(); first != nil; first = l.waiters.Front() {
		w := first.Value.(*waiter)
		l.leaveWaitersLocked(w)
		w.session.hasRoom()
	}
}
