package proxy

import (
	"os"
	"time"
)

// How often a Server of a test looks: sixty times what it is in production, so that a machine on which everything takes
// long runs into none of it. A test that is about one lets the time pass at once (see harness.pass).
const (
	stayInterval  = time.Minute
	laneBusyRetry = time.Minute
	laneIdle      = 5 * time.Minute
	laneRetry     = 30 * time.Minute
	ownAfterBig   = time.Hour
	unprovenLane  = time.Hour
	followTimeout = 2 * time.Minute
)

// outage is how long a command of a test waits for a backend that is away. Other commands of that test may wait for
// longer than this on a loaded machine, so that each of them may be answered as not sent (see settledAtLast, goesOn).
const outage = time.Second

// patience is how long a test waits for what is sure to come. It only ends a test that fails: who expects that can have
// it sooner with TEST_PATIENCE.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TEST_PATIENCE")); err == nil {
		return d
	}
	return time.Minute
}()

// swept has the sweeper look around, and sessions rest, more often than they do for users. In all other tests neither happens on
// its own, so that nothing changes between two steps of a test: a test that needs what the sweeper does calls it.
func swept(c *Config) { c.sweepInterval, c.restAfter = 200*time.Millisecond, 10*time.Millisecond }

// patient is the configuration that tests begin with: a test that is about a time-out, about a backend that is away, or about
// the sweeper sets it itself.
func patient(c *Config) {
	c.HandshakeTimeout, c.WriteTimeout, c.Backend.ConnectTimeout = patience, patience, patience
	c.timeouts = timeouts{
		unavailableTimeout: patience, placeTimeout: patience, closeTimeout: patience, partTimeout: patience,
		doorTimeout:        time.Second, // that of a user is longer than a test about attackers needs to be
		wrongPasswordPause: 1,
		followTimeout:      followTimeout, stuckTimeout: patience, lateAfter: patience, slowCommand: patience,
		stayInterval: stayInterval, ownAfterBig: ownAfterBig, laneIdle: laneIdle, laneStay: laneIdle,
		laneHeld: patience, laneSilent: patience, watchInterval: time.Hour,
		sweepInterval: time.Hour, restAfter: time.Hour, proofAge: -1,
		unprovenLane: unprovenLane, laneRetry: laneRetry, laneBusyRetry: laneBusyRetry,
	}
}
