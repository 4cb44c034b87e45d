package proxy

import (
	"strings"
	"testing"
)

// Whoever writes replies of ours may have been overtaken by a lane that brought what comes before the next one.
func TestRepliesOfOursComeInTheirPlaceAmongThoseOfALane(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
	const refused = "-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n"
	w := h.dial()
	w.get("0")
	for range 20 {
		// The reader writes the first ones while the lane brings the value.
		w.send(strings.Repeat(cmd("SHUTDOWN"), 200) + cmd("GET", "k") + strings.Repeat(cmd("SHUTDOWN"), 3))
		w.want(strings.Repeat(refused, 200) + valueOf("k") + strings.Repeat(refused, 3))
	}
	h.wantOnLanes("GET", 21)
}
