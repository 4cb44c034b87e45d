package proxy

import "time"

// tellInterval is the least time between two log lines about one limit.
const tellInterval = 10 * time.Second

// limitTeller logs that a limit was reached: the first time at once, then how often since.
type limitTeller struct {
	told uint64 // of the count
	next int64  // not before this time, see Server.now
}

// due returns how often the limit was reached since the last line, or 0 if no line is due. count is how often it was
// ever reached.
func (l *limitTeller) due(now int64, count uint64) uint64 {
	since := count - l.told
	if since > 0 && now >= l.next {
		l.told, l.next = count, now+int64(tellInterval)
		return since
	}
	return 0
}

// tellPlaces logs that newcomers found all places for handshakes taken. Called by the sweeper.
func (s *Server) tellPlaces(l *limitTeller) {
	lost := s.handshakes.of(handshakeEvicted) + s.handshakes.of(handshakeEvictedWaiting) + s.handshakes.of(handshakeEvictedShare)
	full := s.handshakes.of(handshakePlaces)
	if n := l.due(s.now(), lost+full); n > 0 {
		s.log.Warn().Uint64("closed", n).Int("max_handshakes", s.c.MaxHandshakes).
			Msg("all places for handshakes were taken: sockets without a finished handshake were closed")
	}
}
