package proxy

import (
	"errors"
	"math/rand/v2"
	"time"
)

// ErrCut means that the time to drain ran out, or that Close was called, while there still were sessions.
var ErrCut = errors.New("drain timed out: sessions were cut")

// Drain stops accepting connections and ends every session within timeout: idle ones at random times in its first half,
// busy ones after their reply, and blocked and subscribed ones shortly before its end. It then closes the server. It
// returns ErrCut if a session was still owed a reply at the end of timeout, or if Close was called meanwhile, which ends
// all sessions at once.
func (s *Server) Drain(timeout time.Duration) error {
	s.stopListening()
	start := time.Now()
	end := start.Add(timeout)
	lastCall := end.Add(-min(timeout/10, time.Second))
	turns := make(map[*session]time.Time)
	t := time.NewTicker(max(time.Millisecond, min(20*time.Millisecond, timeout/50)))
	defer t.Stop()
	for {
		now := time.Now()
		left := 0
		s.each(func(n *session) {
			left++
			turn, ok := turns[n]
			if !ok {
				turn = start.Add(time.Duration(rand.Float64() * float64(timeout) / 2))
				turns[n] = turn
			}
			if !now.Before(turn) && n.idle() || !now.Before(lastCall) && (n.waiting() || !n.owing()) {
				n.end(closeDrain)
			}
		})
		if left == 0 && s.pending.len() == 0 {
			s.Close()
			return nil
		}
		if !now.Before(end) {
			break
		}
		select {
		case <-t.C:
		case <-s.done:
			s.running.Wait()
			return ErrCut
		}
	}
	cut := false
	s.each(func(n *session) {
		if !n.ended() {
			cut = true
			n.end(closeCut)
		}
	})
	for !s.isDone() && s.open() > 0 && time.Since(end) < s.c.goodbyeTimeout {
		<-t.C
	}
	s.Close()
	if cut {
		return ErrCut
	}
	return nil
}
