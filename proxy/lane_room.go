package proxy

import "container/list"

// waiter is a session whose batch of so many commands and bytes waits for room on a lane. A session has one, and waits for
// one lane at a time, whose lane.mu guards it.
type waiter struct {
	place    *list.Element // among lane.waiters; nil: it does not wait
	session  *session
	commands int
	bytes    int
	woken    bool
}

// roomLocked keeps the window; a session that finds no room waits in turn. hot
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

func (l *lane) leaveWaitersLocked(w *waiter) {
	if w.place == nil {
		return
	}
	l.waiters.Remove(w.place)
	w.place = nil
	l.waiting -= w.commands
	l.loadLocked()
}

func (l *lane) fitsLocked(commands, bytes int) bool {
	return l.commands == 0 || l.commands+commands <= laneCommands && l.bytes+bytes <= laneBytes
}

// waits reports whether s has a place among the waiters.
func (l *lane) waits(s *session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.waiter.place != nil
}

// stopWaiting takes back the place of a session that has ended or gone elsewhere.
func (l *lane) stopWaiting(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveWaitersLocked(&s.waiter)
	l.wakeWaiterLocked()
}

// wakeWaiterLocked wakes the session that waits first, once there is room for it. hot
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

// dismiss has everybody who waits choose anew.
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
