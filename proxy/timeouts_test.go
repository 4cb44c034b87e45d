package proxy

import (
	"os"
	"time"
)

// How often a Server of a test looks: sixty times what it is in production, so that a machine on which everything takes
// long runs into none of it. A test that is about one lets the time pass at once (see harness.pass).
const (
	stayInterval  = time.Minute
	laneBusyRetry = int64(time.Minute)
	laneIdle      = int64(5 * time.Minute)
	laneRetry     = int64(30 * time.Minute)
	ownAfterBig   = int64(time.Hour)
	unprovenLane  = int64(time.Hour)
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

// swept has the sweeper run every second, as it does for users. In all other tests it does not run on its own, so that it closes
// nothing between two steps of a test: a test that needs what it does calls it.
func swept(c *Config) { c.sweepInterval = time.Second }

// patient is the configuration that tests begin with: a test that is about a time-out, about a backend that is away, or about
// the sweeper sets it itself.
func patient(c *Config) {
	c.HandshakeTimeout, c.WriteTimeout, c.Backend.ConnectTimeout = patience, patience, patience
	c.timeouts = timeouts{
		unavailableTimeout: patience, placeTimeout: patience, closeTimeout: patience,
		followTimeout: followTimeout, stuckTimeout: patience, lateAfter: patience, slowCommand: patience,
		stayInterval: stayInterval, ownAfterBig: time.Duration(ownAfterBig), laneIdle: time.Duration(laneIdle), laneStay: time.Duration(laneIdle),
		sweepInterval: time.Hour, unprovenLane: time.Duration(unprovenLane), proofAge: -1, restAfter: patience, laneRetry: time.Duration(laneRetry), laneBusyRetry: time.Duration(laneBusyRetry),
	}
}
