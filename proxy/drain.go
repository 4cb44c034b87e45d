package proxy

import (
	"errors"
	"math/rand/v2"
	"time"
)

// ErrCut says that the time to drain ran out while sessions still waited for replies.
var ErrCut = errors.New("drain timed out: sessions were cut")

// Drain stops accepting and ends every session within timeout: idle ones spread over its first half, busy ones
// behind their reply, blocked and subscribed ones at its end. It returns ErrCut when a reply was still owed to
// one then. Close during it ends all at once.
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
