package proxy

import "time"

// timeouts are how long the proxy waits for others, and how often it looks at them. New gives a field at zero the value
// that is named.
type timeouts struct {
	// eofTimeout: how long a backend may be silent when the client sends no more and only waits for what it is owed;
	// WriteTimeout + 30 s.
	eofTimeout time.Duration
	// unavailableTimeout: how long a command waits for a backend that cannot be reached; 2 s.
	unavailableTimeout time.Duration
	// lingerTimeout: how long bytes of a client are read and dropped after our last word, so that a reset does not
	// destroy it on its way; 2 s.
	lingerTimeout time.Duration
	// goodbyeTimeout: sessions that are cut get this long to send close_notify; then they are reset; 500 ms.
	goodbyeTimeout time.Duration
	// closeTimeout: how long the last bytes to a client, its close_notify among them, may wait for it; 5 s.
	closeTimeout time.Duration
	// placeTimeout: how long a newcomer waits for a place of its identity. A client that comes back at once is here
	// before the end of its last connection is; 1 s.
	placeTimeout time.Duration
	// followTimeout: a client that has more unsent than its budget is closed after this time if others wait behind it; 1 s.
	followTimeout time.Duration
	// stuckTimeout: how long a lane's reader goes on for what the backend still says after a failed write; 1 s.
	stuckTimeout time.Duration

	// stayInterval: a session stays where a stronger command was seen for so long: alternating kinds must not wait for
	// each other's replies at each step; 1 s, below 0: it does not stay.
	stayInterval time.Duration
	// lateAfter: a lane whose backend owes a reply for so long may get help from others, see pulse; 1 ms.
	lateAfter time.Duration
	// slowCommand: a command that alone keeps the backend for so long, besides the way there, is slow, see noteSlow; 5 ms.
	slowCommand time.Duration
	// ownAfterBig: a session that asked for more than maxLaneReply uses its own connection for so long; 1 min.
	ownAfterBig time.Duration
	// sweepInterval: how often the sweeper looks for sessions and connections that are to be closed; 1 s. A quarter of
	// IdleTimeout counts instead where that is less.
	sweepInterval time.Duration
	// laneIdle: an idle lane, and an own connection that a session does not use, close after this time; 5 s.
	laneIdle time.Duration
	// laneStay: the last lane of a key that sessions use closes only after this time, see Backend.HasSpare; 5 min. Dialling
	// anew costs several times what a command does.
	laneStay time.Duration
	// restAfter: a session that has been idle for so long rests; 5 s.
	restAfter time.Duration
	// unprovenLane: a lane without credentials shows every so often that the backend still wants none; 1 min.
	unprovenLane time.Duration
	// proofAge: for so long one connection without a password shows for all of its lane key that the backend wants none; 1 s,
	// below 0: it shows that for itself alone.
	proofAge time.Duration
	// laneRetry: a key whose lanes cannot be proven has none for so long; 30 s. laneBusyRetry is for a backend that
	// takes no connection now; 1 s.
	laneRetry, laneBusyRetry time.Duration
	// resolveInterval: a name is resolved again at most this often; 1 s.
	resolveInterval time.Duration
}

func (t *timeouts) setDefaults(writeTimeout time.Duration) {
	setDefault(&t.eofTimeout, writeTimeout+30*time.Second)
	setDefault(&t.unavailableTimeout, 2*time.Second)
	setDefault(&t.lingerTimeout, 2*time.Second)
	setDefault(&t.goodbyeTimeout, 500*time.Millisecond)
	setDefault(&t.closeTimeout, 5*time.Second)
	setDefault(&t.placeTimeout, time.Second)
	setDefault(&t.followTimeout, time.Second)
	setDefault(&t.stuckTimeout, time.Second)
	setDefault(&t.stayInterval, time.Second)
	setDefault(&t.lateAfter, time.Millisecond)
	setDefault(&t.slowCommand, 5*time.Millisecond)
	setDefault(&t.ownAfterBig, time.Minute)
	setDefault(&t.sweepInterval, time.Second)
	setDefault(&t.laneIdle, 5*time.Second)
	setDefault(&t.laneStay, 5*time.Minute)
	setDefault(&t.restAfter, 5*time.Second)
	setDefault(&t.unprovenLane, time.Minute)
	setDefault(&t.proofAge, time.Second)
	setDefault(&t.laneRetry, 30*time.Second)
	setDefault(&t.laneBusyRetry, time.Second)
	setDefault(&t.resolveInterval, time.Second)
}
