package lane

import (
	"time"

	"dragontls/proxy/clock"
)

const (
	// A lane is late when a reply takes longer than Config.LateAfter and the backend needs more than lateEach for a command:
	// then other lanes can help. If replies wait only because there are many, the backend or this machine is busy, and more
	// lanes would add to its work.
	lateEach = 50 * time.Microsecond
	// A lane is also late when no reply has come for lateStalls times LateAfter. The factor is large because a busy machine
	// stops for some milliseconds now and then.
	lateStalls = 10
	// pulse.each is the mean over the commands that were answered within a pulseWindow.
	pulseWindow = 5 * time.Millisecond
	// A lane becomes busy when it had nothing in flight for less than 1/busyBelow of a busyWindow, and stops being busy when it
	// had nothing in flight for more than 1/busyUntil of one. The sessions of a busy lane wait for its backend or for its
	// reader. Those of any other lane wait for their clients and for this machine: a second lane would only split the same
	// commands into more writes and reads.
	busyWindow           = 50 * time.Millisecond
	busyBelow, busyUntil = 32, 4
)

// pulse measures whether the backend keeps up with a lane. Guarded by lane.mu.
type pulse struct {
	idleSince clock.Instant // when the last command in flight was answered
	replied   clock.Instant // when the last reply of a slot last arrived
	big       bool          // the reply that is arriving is longer than MaxReply

	since    clock.Instant // when the pulseWindow began
	commands int           // answered since then
	each     time.Duration // mean time for a command in the last whole pulseWindow
	wait     time.Duration // from hand-over to reply of the last answered run

	window clock.Instant // when the busyWindow began
	idle   time.Duration // how long nothing was in flight in it

	due clock.Instant // judgePulseLocked would find nothing new before this time
}

// begin starts a new pulseWindow when a lane gets work that had nothing in flight since p.idleSince. hot
func (p *pulse) begin(now clock.Instant) {
	p.since, p.commands, p.each, p.wait = now, 0, 0, 0
	p.idle += now.Sub(p.idleSince)
}

// finished counts a run of commands that was handed to the lane at sent. hot
func (p *pulse) finished(commands int, sent, now clock.Instant) {
	p.commands += commands
	p.wait = now.Sub(sent)
	if now.Sub(p.since) >= pulseWindow {
		p.each = now.Sub(p.since) / time.Duration(p.commands)
		p.since, p.commands = now, 0
	}
	if p.each > lateEach {
		p.due = 0
	}
}

// judgePulseLocked decides whether the lane is late, whether the backend is slow for its set and, at the end of each
// busyWindow, whether the lane is busy. A lane that carries a big reply is always late. The caller calls it for each batch and each run
// of replies, but not before pulse.due: as long as the lane is not late and its backend is quick, only time can change that.
func (l *Lane) judgePulseLocked(now clock.Instant) {
	p, late, oldest := &l.pulse, l.pulse.big, now // oldest is when the oldest command that is still owed a reply was handed to the lane
	after := l.set.all.c.LateAfter
	if l.commands > 0 {
		switch oldest = p.since; {
		case l.in.open:
			oldest = l.in.cur.sent
		case l.slots.Len() > 0:
			oldest = l.slots.At(0).sent
		}
		late = late || p.each > lateEach && max(p.wait, now.Sub(oldest)) > after || now.Sub(max(p.replied, oldest)) > lateStalls*after
	}
	if p.due = 0; !late && p.each <= lateEach {
		p.due = max(p.replied, oldest).Add(lateStalls * after)
	}
	if late != l.late.Load() {
		l.late.Store(late)
	}
	if p.each > lateEach && !l.set.slow.Load() {
		l.set.slow.Store(true)
	}
	if took := now.Sub(p.window); took >= busyWindow {
		switch {
		case p.idle < took/busyBelow:
			l.busy.Store(true)
		case p.idle > took/busyUntil:
			l.busy.Store(false)
		}
		p.window, p.idle = now, 0
	}
	p.due = min(p.due, p.window.Add(busyWindow))
}
