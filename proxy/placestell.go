package proxy

import "time"

// tellInterval is the minimum time between two log lines about one limit.
const tellInterval = 10 * time.Second

// limitTeller decides when to log that a limit was reached: the first time at once, after that at most every tellInterval.
type limitTeller struct {
	told uint64 // the count at the last line
	next int64  // no line is due before this time, see Server.now
}

// due returns how often the limit was reached since the last line, or 0 if no line is due. After any other result the caller
// must log a line. count is how often the limit was ever reached.
func (l *limitTeller) due(now int64, count uint64) uint64 {
	since := count - l.told
	if since > 0 && now >= l.next {
		l.told, l.next = count, now+int64(tellInterval)
		return since
	}
	return 0
}

// tellDoor logs that new sockets waited because all places for handshakes were taken. The sweeper calls it.
func (s *Server) tellDoor(l *limitTeller) {
	if n := l.due(s.now(), s.pending.newcomersWaited()); n > 0 {
		s.log.Warn().Uint64("waited", n).Int("max_handshakes", s.c.MaxHandshakes).
			Msg("all places for handshakes were taken: new sockets waited until one was free")
	}
}

// tellPlaces logs that new sockets found all places for handshakes taken. The sweeper calls it.
func (s *Server) tellPlaces(l *limitTeller) {
	lost := s.handshakes.of(handshakeEvicted) + s.handshakes.of(handshakeEvictedWaiting) + s.handshakes.of(handshakeEvictedShare)
	full := s.handshakes.of(handshakePlaces)
	if n := l.due(s.now(), lost+full); n > 0 {
		s.log.Warn().Uint64("closed", n).Int("max_handshakes", s.c.MaxHandshakes).
			Msg("all places for handshakes were taken: sockets without a finished handshake were closed")
	}
}
