package proxy

import (
	"errors"
	"math/rand/v2"
	"time"
)

// ErrCut means that the time to drain ran out, or that Close was called, while there still were sessions.
var ErrCut = errors.New("drain timed out: sessions were cut")

// drainRate is how many idle sessions a second Drain ends, so that their clients do not all reconnect in one moment.
const drainRate = 1000

// firstCommandTimeout is how long a session that was accepted during the drain may take to send its first command.
const firstCommandTimeout = 500 * time.Millisecond

// Drain stops accepting connections and ends every session within timeout. Idle and subscribed sessions end at random times:
// drainRate of them a second, or all of them in the first half of timeout if they are more. Busy ones end after their reply.
// Blocked ones end after half of timeout, and those that the client has sent half a command on shortly before its end. Drain
// then closes the server. It returns ErrCut if a session was still owed a reply at the end of timeout, or if Close was called
// meanwhile, which ends all sessions at once.
func (s *Server) Drain(timeout time.Duration) error {
	s.stopListening(min(s.c.handOverTimeout, timeout/4))
	start, began := time.Now(), s.now()
	end := start.Add(timeout)
	half := start.Add(timeout / 2)
	lastCall := end.Add(-min(timeout/10, time.Second))
	spread := min(timeout/2, time.Duration(s.open())*time.Second/drainRate)
	turns := make(map[*session]time.Time)
	t := time.NewTicker(max(time.Millisecond, min(20*time.Millisecond, timeout/50)))
	defer t.Stop()
	for {
		now := time.Now()
		// In the order in which a client passes: it may go from the listener to a handshake, and from there to a session, while
		// this looks. What is empty here stays empty, if what comes before it is.
		arriving := s.isListening()
		shaking := s.pending.len()
		left := 0
		s.each(func(n *session) {
			left++
			turn, ok := turns[n]
			if !ok {
				turn = start.Add(time.Duration(rand.Float64() * float64(spread)))
				if n.begun > began { // it was accepted while the listener handed over
					turn = now.Add(min(firstCommandTimeout, timeout/4))
				}
				turns[n] = turn
			}
			if !now.Before(turn) && n.quiet() || !now.Before(half) && n.waiting() || !now.Before(lastCall) && !n.owing() {
				n.end(closeDrain)
			}
		})
		if !arriving && shaking == 0 && left == 0 {
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
