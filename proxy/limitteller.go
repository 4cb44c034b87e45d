package proxy

import (
	"dragontls/proxy/clock"
	"dragontls/proxy/limit"
)

// limitTeller decides when to log how often something happened that is no limit of package limit: the first time at once, after that
// at most every limit.Interval.
type limitTeller struct {
	told uint64        // the count at the last line
	next clock.Instant // no line is due before this time, see Server.now
}

// due returns how often it happened since the last line, or 0 if no line is due. After any other result the caller must log a line.
// count is how often it ever happened.
func (l *limitTeller) due(now clock.Instant, count uint64) uint64 {
	since := count - l.told
	if since > 0 && now >= l.next {
		l.told, l.next = count, now.Add(limit.Interval)
		return since
	}
	return 0
}
