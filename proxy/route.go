package proxy

import (
	"errors"

	"dragontls/proxy/backend"
	"dragontls/proxy/lane"
)

// routeKind says over which kind of connection a batch goes. A greater one is stronger, and a batch takes the strongest that
// one of its commands needs.
type routeKind uint8

const (
	routeNone      routeKind = iota // none: the batch asks nothing of the backend
	routeLane                       // a lane for quiet commands
	routeUnbounded                  // a lane for commands whose work has no bound in their arguments
	routeOwn                        // the session's own connection
)

// maxBatch bounds the number of commands in a batch, so that sessions take turns on a lane.
const maxBatch = 512

// route is where a session's commands go. The session is on one connection at a time, and changes it only when every reply
// to what it sent has arrived. The session's reader owns the route.
type route struct {
	on             routeKind
	lane           *lane.Lane // the session stays on it while replies are owed
	set            *lane.Set  // the lanes for the session's state at gen
	gen            uint64
	unbounded      bool  // set is for unbounded commands
	reads          bool  // set is for commands that only read
	ownUntil       int64 // until then the session stays on its own connection
	barredUntil    int64 // until then there are no lanes for the session
	unboundedUntil int64 // until then the session stays on unbounded lanes
}

// submission is the result of handing a batch to a lane or to the own connection.
type submission = lane.Result

const (
	submitted   = lane.Submitted
	submitWait  = lane.Wait
	submitShare = lane.Share
	submitGone  = lane.Gone // the lane takes no new work, or the own connection is gone
)

// These are the session's own results, see Admit.
const (
	submitLater = lane.Refused + iota // the client must take more of its replies first, or the session leave the lanes
	submitLost                        // replies were lost, and the session must recover first
	submitNever                       // the session has ended
	submitOwn                         // a reply is owed by the own connection, and must come first: see WantResend
)

// submit passes the batch on over the connection that wantedRoute chooses, and waits for that connection and for room. If
// the batch cannot be sent, failBatch answers it. An error means that the session takes no more commands.
func (s *session) submit() error {
	c := &s.client
	if c.whole > 0 {
		s.breakTransaction()
	}
	if c.route == routeNone {
		return s.pushLocals()
	}
	for {
		switch want := s.wantedRoute(); {
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

// wantedRoute decides where the batch goes: over the kind of connection that its commands need, or over a stronger one that
// the state of the session requires.
func (s *session) wantedRoute() routeKind {
	if s.keepsOwn() {
		return routeOwn
	}
	now := s.server.now()
	c, at := &s.client, &s.at
	switch c.route {
	case routeOwn:
		at.ownUntil = now + int64(s.server.c.stayInterval)
		return routeOwn
	case routeUnbounded:
		at.unboundedUntil = now + int64(s.server.c.stayInterval)
	}
	owed := s.owes() // before the rest: what a reply changes in the session is stored before the reply stops being owed
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

// settledForRoute waits until nothing is owed, so that the session may change its connection. It returns false if the
// session has ended.
func (s *session) settledForRoute() bool {
	return s.park(func() bool { return s.queue.owed == 0 })
}

// flushLane submits the batch to a lane. It returns false if the route must be decided again. If it returns true, the batch
// was submitted or answered by failBatch, or the session has ended.
func (s *session) flushLane(want routeKind) bool {
	l, err := s.chooseLane(want)
	if err != nil {
		if errors.Is(err, lane.ErrNoLanes) {
			s.at.barredUntil = s.at.set.BarredUntil()
			return false
		}
		s.failBatch(err)
		return true
	}
	now := s.server.now()
	if c := &s.client; c.hasTx && !l.Transactions() {
		c.route = routeOwn
		return false
	}
	s.mustFitLane()
	result := l.Submit(&s.seat, &s.client.out, now)
	if result == submitWait {
		result = s.awaitRoom(l)
	}
	switch result {
	case submitted:
		s.at.on, s.at.lane = want, l
		s.batchSent()
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
		s.park(func() bool { return s.queue.owed == 0 })
		s.at.lane = nil
	case submitOwn:
		s.settledForRoute()
	case submitLater:
		s.awaitTaken()
	case submitLost:
		s.failBatch(errLost)
		return true
	case submitNever:
		s.client.flushErr = errEnded
		return true
	}
	return false
}

// awaitRoom waits for room on l, where the session must be among the waiters, and submits the batch when its turn comes. The
// result submitWait means that the lane has dismissed the session, which must choose again. In every case the session is no
// longer among the waiters when awaitRoom returns.
func (s *session) awaitRoom(l *lane.Lane) submission {
	defer l.StopWaiting(&s.seat)
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
		case !l.Waits(&s.seat):
			return submitWait
		}
		s.mustFitLane()
		if result := l.Submit(&s.seat, &s.client.out, s.server.now()); result != submitWait {
			return result
		}
	}
}

func (q *replyOrder) takeRoom() {
	q.mu.Lock()
	q.room = false
	q.mu.Unlock()
}

// chooseLane returns the lane on which replies are owed or, if none are, the lane that Set.Choose picks for the
// session's present state. A batch that only reads does not wait on a lane that is held: there are other lanes for those then.
// chooseLane waits for a lane at most unavailableTimeout, not counting the wait for a token.
func (s *session) chooseLane(want routeKind) (*lane.Lane, error) {
	at := &s.at
	if at.lane != nil && s.owes() {
		return at.lane, nil
	}
	var l *lane.Lane
	if want == routeLane && s.server.now() < s.seat.SlowUntil() {
		l = s.laneApart()
	}
	if l == nil {
		s.findSet(want == routeUnbounded, false)
		l = at.set.Choose(s.begun)
	}
	if l != nil && l.Held() && !s.client.changes && s.server.backend.HasSpare() {
		s.findSet(at.unbounded, true)
		l = at.set.Choose(s.begun)
	}
	if l != nil {
		return l, nil
	}
	over := make(chan struct{})
	defer close(over)
	go s.watchUntil(over) // ends with the wait; nobody waits for it
	return at.set.Await(s.begun, s.done)
}

// laneApart returns one of the unbounded lanes, for a session whose commands are slow. If there is none yet, it starts a
// dial and returns nil: the session does not wait for it.
func (s *session) laneApart() *lane.Lane {
	s.findSet(true, false)
	l := s.at.set.Choose(s.begun)
	if l == nil && !s.at.set.HasLanes() {
		s.at.set.Open()
	}
	return l
}

// findSet sets at.set to the lane set of the session's present state, for commands whose work is unbounded, for commands that only
// read while another lane is held, or for both.
func (s *session) findSet(unbounded, reads bool) {
	at := &s.at
	gen := s.gen.Load()
	if at.set != nil && at.gen == gen && at.unbounded == unbounded && at.reads == reads {
		return
	}
	s.leaveSet()
	key, l := s.laneKey(unbounded)
	key.Reads = reads
	at.set, at.gen, at.unbounded, at.reads = s.server.lanes.Get(key, l), gen, unbounded, reads
}

// leaveSet gives up the session's use of its lane set, if it has one.
func (s *session) leaveSet() {
	if s.at.set != nil {
		s.server.lanes.Leave(s.at.set)
		s.at.set = nil
	}
}

// abandonLane tells the lane on which replies may be owed that the client has left, or sends nothing more. It may be called again.
func (s *session) abandonLane() {
	if s.at.lane != nil {
		s.at.lane.Abandon(&s.seat)
	}
}

// laneKey returns the lane key of the session in its present state, and the login with which such a lane is dialled.
func (s *session) laneKey(unbounded bool) (key lane.Key, l backend.Login) {
	p := s.peer.Load()
	l = s.login()
	l.Proof, l.Account = backend.WithTransactions, nil
	s.pump.mu.Lock()
	st := s.state
	s.pump.mu.Unlock()
	l.State = backend.State{Database: st.Database, RESP3: st.RESP3, ReadOnly: st.ReadOnly}
	key = lane.Key{Identity: p.Identity, Credential: s.credential, Database: st.Database, RESP3: st.RESP3, ReadOnly: st.ReadOnly, Unbounded: unbounded}
	if p.User != nil {
		key.User, key.Mapping = p.User.Name, p.User.Mapping
	}
	return key, l
}

// mustFitLane panics if the batch's slots and commands do not agree. That ends this session before its batch can put the
// replies of others out of order. hot
func (s *session) mustFitLane() {
	c, n := &s.client, 0
	for i := range c.pend {
		switch p := &c.pend[i]; {
		case p.kind == slotReplies:
			n += p.n
		case !p.kind.local():
			panic("a batch for the own connection went to a lane")
		}
	}
	if n != c.out.Replies || n != c.frames {
		panic("a batch has not as many commands as slots")
	}
}

// batchSent drops the batch after it was passed on.
func (s *session) batchSent() {
	s.dropBatch()
	s.freeOut()
}

// dropBatch drops the slots of the batch and what is known of its commands, but not its bytes.
func (s *session) dropBatch() {
	c := &s.client
	clear(c.pend)
	c.pend = c.pend[:0]
	if cap(c.pend) > fewSlots {
		c.pend = nil
	}
	s.countBatch()
	c.frames = 0
	c.route, c.out.Replies, c.whole, c.hasTx, c.stateful, c.scripting, c.changes = routeNone, 0, 0, false, false, false, false
}

// pushLocals queues a batch that consists of local replies only.
func (s *session) pushLocals() error {
	if len(s.client.out.Bytes) > 0 || s.client.out.Replies > 0 {
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
