package proxy

import (
	"errors"
	"sync/atomic"
)

// routeKind orders the ways that a batch can go; the strongest that a command of it wants is taken.
type routeKind uint8

const (
	routeNone      routeKind = iota // nothing of the backend is asked
	routeLane                       // quiet commands
	routeUnbounded                  // lanes for commands whose work has no bound in their arguments
	routeOwn                        // the session's own connection
)

// maxBatch bounds the commands of a batch, so that sessions take turns on a lane.
const maxBatch = 512

// route is where a session's commands go. It is on one connection at a time and changes only when every reply to
// what it sent has arrived. The reader owns it.
type route struct {
	on             routeKind
	lane           *lane    // on it while replies are owed
	set            *laneSet // for the session's state at gen
	gen            uint64
	unbounded      bool // what set is for
	ownUntil       int64
	barredUntil    int64 // until then there are no lanes for it
	unboundedUntil int64
}

// onLane is what a session has in flight on its lane. A lane gives room back behind the last reply, when the session may
// be on another one already.
type onLane struct{ commands, bytes atomic.Int32 }

func (o *onLane) add(commands, bytes int) {
	o.commands.Add(int32(commands))
	o.bytes.Add(int32(bytes))
}

// full says that so much more would be beyond the share of one session. hot
func (o *onLane) full(commands, bytes int) bool {
	n := int(o.commands.Load())
	return n > 0 && (n+commands > laneCommands/laneShare || int(o.bytes.Load())+bytes > laneBytes/laneShare)
}

// submission is what came of handing a batch to a lane, or to the own connection.
type submission uint8

const (
	submitted   submission = iota
	submitWait             // for room: the session is among the waiters
	submitShare            // the session has as much in flight as it may
	submitGone             // the lane takes no new work; or the own connection is gone
	submitLater            // the client has to take more of its replies first
	submitLost             // the session has to recover first
	submitNever            // the session has ended
	submitOwn              // what is owed comes over the own connection first, see wantResend
)

// submit passes the batch on where its strongest command has to go.
func (s *session) submit() error {
	c := &s.client
	if c.whole > 0 {
		s.breakTransaction()
	}
	if c.route == routeNone {
		return s.pushLocals()
	}
	for {
		switch want := s.wantedRoute(s.server.now()); {
		case c.flushErr != nil:
			return c.flushErr
		case s.ended():
			c.flushErr = errEnded
			return errEnded
		case want != s.at.on && !s.settledForRoute():
			return errEnded
		case want == routeOwn:
			s.at.on, s.at.lane = want, nil
			if s.flushOwn() {
				return c.flushErr
			}
		default:
			if s.flushLane(want) {
				return c.flushErr
			}
		}
	}
}

// wantedRoute decides between what the batch asks for and staying where the session is.
func (s *session) wantedRoute(now int64) routeKind {
	c, at := &s.client, &s.at
	switch c.route {
	case routeOwn:
		at.ownUntil = now + int64(s.server.c.stayInterval)
		return routeOwn
	case routeUnbounded:
		at.unboundedUntil = now + int64(s.server.c.stayInterval)
	}
	if s.ownsFromBirth() {
		return routeOwn
	}
	owed := s.owes() // first: what a reply says of the session is known before it is owed no more
	if s.keepsOwn() || !s.isProven(now) || s.sticky() || now < s.ownUntil.Load() || at.barredUntil > now {
		return routeOwn
	}
	if at.on == routeOwn && (owed || now < at.ownUntil) && s.hasOwn() {
		return routeOwn
	}
	if now < at.unboundedUntil || at.on == routeUnbounded && owed {
		return routeUnbounded
	}
	return routeLane
}

func (s *session) owes() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.owed > 0
}

// settledForRoute waits until nothing is owed: the session may change its connection then. false: it has ended.
func (s *session) settledForRoute() bool {
	return s.park(func() bool { return s.queue.owed == 0 })
}

// flushLane submits the batch to a lane. false: the route has to be decided anew.
func (s *session) flushLane(want routeKind) bool {
	l, err := s.chooseLane(want)
	if err != nil {
		if errors.Is(err, errNoLanes) {
			s.at.barredUntil = s.at.set.barredUntil()
			return false
		}
		s.failBatch(err)
		return true
	}
	now := s.server.now()
	if c := &s.client; c.hasTx && !l.transactions() {
		c.route = routeOwn
		return false
	}
	result := l.submit(s, now)
	if result == submitWait {
		result = s.awaitRoom(l)
	}
	switch result {
	case submitted:
		s.at.on, s.at.lane = want, l
		s.batchSent()
		l.set.growWith(l)
		return true
	case submitShare:
		below := 0
		s.park(func() bool {
			q := &s.queue
			if below == 0 {
				below = max(1, q.owed*3/4)
			}
			q.out.below = below
			return q.owed < below || q.lost
		})
	case submitGone:
		l.set.remove(l) // which it does itself only when it ends: nobody is to look at it until then
		s.park(func() bool { return s.queue.owed == 0 })
		s.at.lane = nil
	case submitOwn:
		s.settledForRoute()
	case submitLater:
		s.park(func() bool { return s.queue.out.littleUnsent() || s.queue.lost })
	case submitLost:
		s.failBatch(errLost)
		return true
	case submitNever:
		s.client.flushErr = errEnded
		return true
	}
	return false
}

// awaitRoom waits for room on l, and submits the batch when its turn comes. submitWait: the session is to choose anew. However
// it ends, the session is not among the waiters any more.
func (s *session) awaitRoom(l *lane) submission {
	defer l.stopWaiting(s)
	for {
		lost := false
		s.park(func() bool {
			lost = s.queue.lost
			return s.queue.room || lost
		})
		s.queue.takeRoom()
		switch {
		case lost: // there is nothing to wait for
			return submitLost
		case s.ended():
			return submitNever
		case !l.waits(s):
			return submitWait
		}
		if result := l.submit(s, s.server.now()); result != submitWait {
			return result
		}
	}
}

// hasRoom wakes the reader that waits for room on a lane.
func (s *session) hasRoom() {
	q := &s.queue
	q.mu.Lock()
	q.room = true
	q.notifyLocked()
	q.mu.Unlock()
}

func (q *replyOrder) takeRoom() {
	q.mu.Lock()
	q.room = false
	q.mu.Unlock()
}

// chooseLane returns the lane on which replies are owed, or the least loaded one for the session as it is now. It waits
// for a lane at most unavailableTimeout.
func (s *session) chooseLane(want routeKind) (*lane, error) {
	at := &s.at
	if at.lane != nil && s.owes() {
		return at.lane, nil
	}
	if want == routeLane && s.server.now() < s.slowUntil.Load() {
		if l := s.laneApart(); l != nil {
			return l, nil
		}
	}
	s.findSet(want == routeUnbounded)
	if l := at.set.choose(); l != nil {
		return l, nil
	}
	over := make(chan struct{})
	defer close(over)
	go s.watchUntil(over) // ends with the wait; nobody waits for it
	return at.set.await(s.done)
}

// laneApart returns a lane of those for slow commands, to a session that sends such. Where there is none yet, it has one
// dialled, and returns nil: the session does not wait for it.
func (s *session) laneApart() *lane {
	s.findSet(true)
	l := s.at.set.choose()
	if l == nil {
		s.at.set.openIf(func() bool { return true })
	}
	return l
}

// findSet sees that at.set is that of the session as it is now.
func (s *session) findSet(unbounded bool) {
	at := &s.at
	gen := s.gen.Load()
	if at.set != nil && at.gen == gen && at.unbounded == unbounded {
		return
	}
	s.leaveSet()
	key, l := s.laneKey(unbounded)
	at.set, at.gen, at.unbounded = s.server.lanes.get(key, l), gen, unbounded
}

func (s *session) leaveSet() {
	if s.at.set != nil {
		s.server.lanes.leave(s.at.set)
		s.at.set = nil
	}
}

// batchSent forgets the batch, which was passed on.
func (s *session) batchSent() {
	s.dropBatch()
	s.freeOut()
}

// dropBatch forgets the slots of the batch.
func (s *session) dropBatch() {
	c := &s.client
	clear(c.pend)
	c.pend = c.pend[:0]
	if cap(c.pend) > fewSlots {
		c.pend = nil
	}
	s.countBatch()
	c.frames = 0
	c.route, c.replies, c.whole, c.hasTx, c.stateful = routeNone, 0, 0, false, false
}

// pushLocals queues a batch that is only replies of ours.
func (s *session) pushLocals() error {
	if len(s.client.out) > 0 || s.client.replies > 0 {
		panic("commands without a way to go")
	}
	now := s.server.now()
	for i := range s.client.pend {
		s.client.pend[i].sent = now
	}
	s.push(s.client.pend)
	s.dropBatch()
	return nil
}
