package proxy

import (
	"errors"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
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
	whileLoading   backend.WhileLoading // what a new own connection does while the backend is loading its data, see wasServed
	lane           *lane.Lane           // the session stays on it, since replies may be owed there; or nil
	set            *lane.Set            // the lanes of setFor, or nil
	setFor         setFor
	ownUntil       clock.Instant // until then the session stays on its own connection
	barredUntil    clock.Instant // until then there are no lanes for the session
	unboundedUntil clock.Instant // until then the session stays on unbounded lanes
}

// setFor says for what a session uses a lane set.
type setFor struct {
	gen       uint64 // for its state as of session.gen
	unbounded bool   // for commands whose work is unbounded
	reads     bool   // for commands that only read, while another lane is held
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
	submitNever                       // the session has ended
	submitOwn                         // a reply is owed by the own connection, and must come first: see WantResend
)

// goOver notes over which connection the session's commands go from now on: over the lane l, or over its own connection, where l is
// nil. hot
func (s *session) goOver(on routeKind, l *lane.Lane) {
	if s.at.on != on {
		s.goesOver.Store(int32(on))
	}
	s.at.on, s.at.lane = on, l
}

// settledForRoute waits until nothing is owed, so that the session may change its connection. It returns false if the
// session has ended.
func (s *session) settledForRoute() bool {
	if !s.park(func() bool { return s.queue.owed == 0 }) {
		return false
	}
	s.at.lane = nil
	return true
}

// awaitRoom waits for room on l, where the session must be among the waiters, and submits the batch when its turn comes. The
// result submitWait means that the lane has dismissed the session, which must choose again. In every case the session is no
// longer among the waiters when awaitRoom returns.
func (s *session) awaitRoom(l *lane.Lane) submission {
	defer l.StopWaiting(&s.seat)
	for {
		s.park(func() bool { return s.queue.room })
		s.queue.takeRoom()
		switch {
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

// laneApart returns one of the unbounded lanes, for a session whose commands are slow. If there is none yet, it starts a
// dial and returns nil: the session does not wait for it.
func (s *session) laneApart() *lane.Lane {
	s.findSet(setFor{gen: s.gen.Load(), unbounded: true})
	l := s.at.set.Choose(s.begun)
	if l == nil && !s.at.set.HasLanes() {
		s.at.set.Open()
	}
	return l
}

// findSet sets at.set to the lane set for f.
func (s *session) findSet(f setFor) {
	if s.at.set == nil || s.at.setFor != f {
		s.changeSet(f)
	}
}

func (s *session) changeSet(f setFor) {
	s.leaveSet()
	key, l := s.laneKey(f.unbounded)
	key.Reads = f.reads
	s.at.set, s.at.setFor = s.server.lanes.Get(key, l), f
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

// pushLocals queues a batch that consists of local replies only.
func (s *session) pushLocals() {
	if len(s.client.out.Bytes) > 0 || s.client.out.Replies > 0 {
		panic("commands without a way to go")
	}
	s.tally(s.stripe.local) // a QUIT, say
	s.push(s.client.pend)
	s.dropBatch()
}

// withoutLane does what the error err of chooseLane asks for. It returns what flushLane is to return.
func (s *session) withoutLane(err error) bool {
	if errors.Is(err, lane.ErrNoLanes) && !(s.wasServed() && errors.Is(err, lane.ErrLoading)) {
		s.at.barredUntil = s.at.set.BarredUntil()
		return false
	}
	s.failBatch(err)
	return true
}

// notSubmitted does what a result of Lane.Submit other than submitted asks for. It returns what flushLane is to return.
func (s *session) notSubmitted(result submission) bool {
	switch result {
	case submitShare:
		below := 0
		s.park(func() bool {
			q := &s.queue
			if below == 0 {
				below = max(1, q.owed*3/4)
			}
			q.out.below = below
			return q.owed < below
		})
	case submitGone, submitOwn:
		s.settledForRoute()
	case submitLater:
		s.awaitTaken()
	case submitNever:
		s.client.flushErr = errEnded
		return true
	}
	return false
}
