package proxy

import "time"

const (
	// A lane is late when a reply has been owed for longer than timeouts.lateAfter, and the backend takes longer than
	// lateEach for a command: then other lanes can help. Where replies only wait because there are many, the backend or this machine
	// is busy, and more lanes would add to its work.
	lateEach = int64(50 * time.Microsecond)
	// lateStalls: a lane is also late when no reply has come for lateStalls times lateAfter. It is that many because a busy
	// machine stops for some milliseconds now and then.
	lateStalls = 10
	// pulseWindow: pulse.each is the mean of the commands answered in this time.
	pulseWindow = int64(5 * time.Millisecond)
	// A lane becomes busy when it had nothing in flight for less than 1/busyBelow of a busyWindow, and stops being busy when it
	// had nothing in flight for more than 1/busyUntil of one. The sessions of a busy lane wait for its backend or for its reader.
	// Those of any other lane wait for their clients and for this machine: a second lane would only split the same commands into
	// more writes and reads.
	busyWindow           = int64(50 * time.Millisecond)
	busyBelow, busyUntil = 32, 4
	// slowMemory: a session that sends two slow commands within this time rides lanes of such sessions until it has sent
	// none for so long.
	slowMemory = int64(time.Minute)
)

// pulse is what a lane knows of how its backend keeps up. Guarded by lane.mu.
type pulse struct {
	since    int64 // when the pulseWindow began
	commands int   // that were answered since
	each     int64 // nanoseconds for a command, in the last pulseWindow
	wait     int64 // nanoseconds that the last answered command took

	window int64 // when the busyWindow began
	idle   int64 // nanoseconds of it with nothing in flight
}

// begin starts anew with a lane that had nothing in flight since idleSince. hot
func (p *pulse) begin(idleSince, now int64) {
	*p = pulse{since: now, window: p.window, idle: p.idle + now - idleSince}
}

// finished counts a run of commands that was handed to the lane at sent. hot
func (p *pulse) finished(commands int, sent, now int64) {
	p.commands += commands
	p.wait = now - sent
	if now-p.since >= pulseWindow {
		p.each = (now - p.since) / int64(p.commands)
		p.since, p.commands = now, 0
	}
}

// judgePulseLocked judges whether the lane is late, whether its backend is slow and whether the lane is busy. hot
func (l *lane) judgePulseLocked(now int64) {
	late := l.big
	if !late && l.commands > 0 {
		after, oldest := int64(l.set.server.c.lateAfter), l.oldestLocked()
		late = l.pulse.each > lateEach && max(l.pulse.wait, now-oldest) > after || now-max(l.replied, oldest) > lateStalls*after
	}
	if late != l.late.Load() {
		l.late.Store(late)
	}
	if l.pulse.each > lateEach && !l.set.slow.Load() {
		l.set.slow.Store(true)
	}
	l.judgeBusyLocked(now)
}

// judgeBusyLocked judges at the end of each busyWindow whether the lane is busy. hot
func (l *lane) judgeBusyLocked(now int64) {
	p := &l.pulse
	took := now - p.window
	if took < busyWindow {
		return
	}
	switch {
	case p.idle < took/busyBelow:
		l.busy.Store(true)
	case p.idle > took/busyUntil:
		l.busy.Store(false)
	}
	p.window, p.idle = now, 0
}

// oldestLocked is when the first command was handed to the lane that is owed a reply; one is.
func (l *lane) oldestLocked() int64 {
	switch {
	case l.in.open:
		return l.in.cur.sent
	case l.slots.len() > 0:
		return l.slots.at(0).sent
	}
	return l.pulse.since
}

// noteSlow remembers a slow command of the session. A lane's reader calls it.
func (s *session) noteSlow(now int64) {
	if last := s.slowAt.Swap(now); last != 0 && now-last < slowMemory {
		s.slowUntil.Store(now + slowMemory)
	}
}
