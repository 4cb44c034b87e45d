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

// patience is how long a test waits for what is sure to come. It only ends a test that fails: who expects that can have
// it sooner with TEST_PATIENCE.
var patience = func() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("TEST_PATIENCE")); err == nil {
		return d
	}
	return time.Minute
}()

// patient is the configuration that tests begin with: a test that is about a time-out sets it itself. Those that it does
// not name, such as unavailableTimeout, many tests wait for: they are as in production, but for tests that only suffer
// from them.
func patient(c *Config) {
	c.HandshakeTimeout, c.WriteTimeout, c.Backend.ConnectTimeout = patience, patience, patience
	c.timeouts = timeouts{
		closeTimeout:  patience,
		followTimeout: followTimeout, stuckTimeout: patience,
		stayInterval: stayInterval, ownAfterBig: time.Duration(ownAfterBig), laneIdle: time.Duration(laneIdle),
		unprovenLane: time.Duration(unprovenLane), laneRetry: time.Duration(laneRetry), laneBusyRetry: time.Duration(laneBusyRetry),
	}
}
