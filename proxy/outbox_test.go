package proxy

import (
	"runtime"
	"strings"
	"testing"
)

// Whoever writes replies of ours may have been overtaken by a lane that brought what comes before the next one.
func TestRepliesOfOursComeInTheirPlaceAmongThoseOfALane(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h, gates := b.startGated(func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
	const refused = "-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n"
	w := h.dial()
	w.get("0")
	s := h.sessionOf(w)
	q := &s.queue
	within := func(cond func() bool) func() bool {
		return func() bool {
			q.mu.Lock()
			defer q.mu.Unlock()
			return cond()
		}
	}
	for range 5 {
		eventually(t, "nobody writes", s.settledNow)
		gates.of(w).Stop()
		held := b.hold("k")
		w.send(cmd("SHUTDOWN") + cmd("GET", "k") + strings.Repeat(cmd("SHUTDOWN"), 3)) // one record, and so one batch
		<-held.reached
		eventually(t, "the reader writes the first refusal", within(func() bool { return q.turn && q.slots.Len() == 4 }))
		held.say(valueOf("k"))
		eventually(t, "the lane has brought the value", within(func() bool { return q.out.size > 0 }))
		gates.of(w).Open()
		w.want(refused + valueOf("k") + strings.Repeat(refused, 3))
	}
	for range 20 { // the reader writes many while the lane brings the value
		w.send(strings.Repeat(cmd("SHUTDOWN"), 200) + cmd("GET", "k") + strings.Repeat(cmd("SHUTDOWN"), 3))
		w.want(strings.Repeat(refused, 200) + valueOf("k") + strings.Repeat(refused, 3))
	}
	h.wantOnLanes("GET", 26)
}

// What a session that ends has not sent yet is dropped with all that comes behind it: a refusal in its place would answer
// another command, or stand in the middle of a reply.
func TestNothingIsWrittenBehindWhatWasDropped(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	value := strings.Repeat("x", slowValue)
	b.on(func(_ *laneConn, args []string) (string, bool) { return bulk(value), args[len(args)-1] == "big" })
	h, gates := b.startGated(func(c *Config) { c.SessionBuffer, c.DenyCommands = 64<<20, []string{"SHUTDOWN"} })
	w := h.dial()
	w.get("0")
	s := h.sessionOf(w)
	q := &s.queue
	gates.of(w).Stop()
	w.send(strings.Repeat(cmd("GET", "big"), 3) + cmd("SHUTDOWN"))
	eventually(t, "all replies have come, and the client takes none", func() bool { return !s.owes() && s.client.sock.Stuck() })
	q.close() // as end does, before the reader closes the connection
	gates.of(w).Open()
	go func() { // ends with the writer
		for s.hasWriters() {
			runtime.Gosched()
		}
		s.end(closeUntrusted)
	}()
	if got := w.wantEnd(); strings.Contains(got, "NOPERM") {
		t.Errorf("%d bytes and then %q", strings.Index(got, "-"), got[strings.Index(got, "-"):])
	}
}

// hasWriters says that somebody writes to the client still.
func (s *session) hasWriters() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.out.writers > 0
}
