package proxy

import (
	"time"

	"dragontls/proxy/lane"
)

// What lanes call of a session, see lane.Rider, is Admit and Receive (reply.go), Lose (loss.go), WantResend
// (resend.go), and the following.
var _ lane.Rider = (*session)(nil)

// HasRoom wakes the session's reader, which waits for room on a lane.
func (s *session) HasRoom() {
	q := &s.queue
	q.mu.Lock()
	q.room = true
	q.notifyLocked()
	q.mu.Unlock()
}

// Big moves the session to its own connection for ownAfterBig.
func (s *session) Big() {
	if s.ownUntil.Load() != forGood {
		s.ownUntil.Store(s.server.now().Add(s.server.c.ownAfterBig))
	}
}

// Follow makes a lane's reader wait while the client does not take its replies. If others wait on the lane, the session is
// closed once its lanes have waited for it for followTimeout in all.
func (s *session) Follow(othersWait func() bool) {
	q, now, followTimeout := &s.queue, s.server.now, s.server.c.followTimeout
	q.mu.Lock()
	defer q.mu.Unlock()
	since := now().Add(-s.followed)
	defer func() { s.followed = now().Sub(since) }()
	for !q.closed && q.out.unsent > q.out.budget()/2 {
		t := time.AfterFunc(followTimeout/4, q.notify)
		q.changed.Wait()
		t.Stop()
		if now().Sub(since) < followTimeout || q.closed {
			continue
		}
		q.mu.Unlock()
		if othersWait() {
			s.kill(closeSlow)
		}
		q.mu.Lock()
	}
}

// Ended reports whether the session has ended.
func (s *session) Ended() bool { return s.ended() }

// Cut closes the session, because a lane can no longer tell which replies are its own, or has lost half of one.
func (s *session) Cut() { s.end(closeLane) }
