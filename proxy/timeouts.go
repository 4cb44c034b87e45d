package proxy

import "time"

// timeouts are how long the proxy waits for others, and how often it looks at them. The comment of each field ends with the
// value that New gives to a zero field.
type timeouts struct {
	// eofTimeout is how long a backend may be silent after the client has sent its last byte and only waits for its replies;
	// WriteTimeout + 30 s (settings.eofTimeout).
	eofTimeout time.Duration
	// unavailableTimeout is how long a command waits for a backend that cannot be reached; 2 s.
	unavailableTimeout time.Duration
	// lingerTimeout is how long a client must send nothing after our last reply before its connection is closed, and lingerLimit
	// how long it may go on sending at most. What it sends is dropped: closing with bytes unread would send a reset, and the
	// client might never see that reply; 2 s and 5 s.
	lingerTimeout, lingerLimit time.Duration
	// goodbyeTimeout is how long a session that is cut off has to send close_notify before its connection is reset; 500 ms.
	goodbyeTimeout time.Duration
	// closeTimeout is how long the last bytes to a client, close_notify included, may wait until it takes them; 5 s.
	closeTimeout time.Duration
	// handOverTimeout is how long connections that have begun may take to arrive at a listener that hands over; 250 ms.
	handOverTimeout time.Duration
	// doorTimeout is how long sockets may wait in all, before it is their turn to be accepted, while all places for handshakes are
	// taken, see door; 5 s. Below 0 they do not wait.
	doorTimeout time.Duration
	// placeTimeout is how long a new session waits for a place of its identity. A client that reconnects at once may be here
	// before we see the end of its last connection; 1 s.
	placeTimeout time.Duration
	// partTimeout is how long the backend has to close a connection that is given up, before we close it, see Backend.Part; 1 s.
	partTimeout time.Duration
	// followTimeout is how long others may wait on a lane for a client that has more unsent than its budget, before that client
	// is closed; 1 s.
	followTimeout time.Duration
	// stuckTimeout is how long a lane's reader goes on reading replies after a failed write; 1 s.
	stuckTimeout time.Duration

	// wrongPasswordPause is how long a session takes no more commands after its first wrong password, see maxWrongPasswords;
	// 100 ms.
	wrongPasswordPause time.Duration
	// forgetGuessAfter is how long it takes until a client has one wrong password less to its account, see guesses; 10 s.
	forgetGuessAfter time.Duration

	// stayInterval is how long a session stays on its own connection, or on unbounded lanes, after a command that needed them:
	// otherwise commands of alternating kinds would wait for each other's replies at each step; 1 s. Below 0 it does not stay.
	stayInterval time.Duration
	// lateAfter is how long a lane may take for a reply before it can be late, see package lane; 1 ms.
	lateAfter time.Duration
	// slowCommand is how long a command may keep the backend, without the round trip, before it counts as slow, see lane.Seat;
	// 5 ms.
	slowCommand time.Duration
	// ownAfterBig is how long a session uses its own connection after a reply above lane.MaxReply; 1 min.
	ownAfterBig time.Duration
	// sweepInterval is how often the sweeper looks for sessions and connections to close, or a quarter of IdleTimeout if that is
	// less; 1 s.
	sweepInterval time.Duration
	// laneIdle is how long a lane, or an own connection, may be idle before it is closed; 5 s.
	laneIdle time.Duration
	// laneStay is how long the last lane of a key that sessions use may be idle, while Backend.HasSpare reports true, since a
	// dial costs several times what a command does; 5 min.
	laneStay time.Duration
	// restAfter is how long a session is idle before it rests; 5 s.
	restAfter time.Duration
	// unprovenLane is how long a lane without credentials lives. The dial of the next one shows whether the backend still serves
	// clients without a password; 1 min.
	unprovenLane time.Duration
	// proofAge is how long after it was opened a connection without a password proves for all sessions of its lane key that the
	// backend wants none; 1 s. Below 0 it proves that for its own session alone.
	proofAge time.Duration
	// laneRetry is how long a key has no lanes after the backend has answered a dial of a lane wrongly; 30 s. laneBusyRetry is the same for a
	// backend that takes no new connection at the moment; 1 s.
	laneRetry, laneBusyRetry time.Duration
	// laneHeld is how long a lane may owe its oldest reply before commands that only read leave it, 100 ms, and laneSilent how long before
	// it takes no more work, 1 s, where the backend answers on a new connection: see lane.Sets.Watch, which is called every
	// watchInterval, 50 ms, and opens such a connection every askInterval at most, 1 s.
	laneHeld, laneSilent, watchInterval, askInterval time.Duration
	// resolveInterval is the minimum time between two resolutions of the backend's name; 1 s.
	resolveInterval time.Duration
}

func (t *timeouts) setDefaults() {
	setDefault(&t.unavailableTimeout, 2*time.Second)
	setDefault(&t.lingerTimeout, 2*time.Second)
	setDefault(&t.lingerLimit, 5*time.Second)
	setDefault(&t.goodbyeTimeout, 500*time.Millisecond)
	setDefault(&t.closeTimeout, 5*time.Second)
	setDefault(&t.handOverTimeout, 250*time.Millisecond)
	setDefault(&t.doorTimeout, 5*time.Second)
	setDefault(&t.placeTimeout, time.Second)
	setDefault(&t.partTimeout, time.Second)
	setDefault(&t.followTimeout, time.Second)
	setDefault(&t.stuckTimeout, time.Second)
	setDefault(&t.wrongPasswordPause, 100*time.Millisecond)
	setDefault(&t.forgetGuessAfter, 10*time.Second)
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
	setDefault(&t.laneHeld, 100*time.Millisecond)
	setDefault(&t.laneSilent, time.Second)
	setDefault(&t.watchInterval, 50*time.Millisecond)
	setDefault(&t.askInterval, time.Second)
	setDefault(&t.resolveInterval, time.Second)
}
