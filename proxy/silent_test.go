package proxy

import (
	"sync/atomic"
	"testing"

	"dragontls/proxy/proxytest"
)

// Existing flows are dropped by a middlebox that goes on acknowledging, while new ones work. A client that gives up and reconnects is
// served, as over a direct connection: it is not put on the lane that owes a reply to the session that it left.
func TestClientThatReconnectsIsServedAlthoughExistingFlowsAreSilent(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		r, err := proxytest.NewRelay("unix:"+redisServer(t), proxytest.Faults{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		h := m.start(t, r.Addr(), func(c *Config) { c.Backend.Credentials = credentials("", "") })
		var clients [6]*wire
		for i := range clients {
			clients[i] = h.dial()
			clients[i].do("+OK\r\n", "SET", "k", "v")
			clients[i].do(bulk("v"), "GET", "k")
		}
		r.Silence()
		for _, w := range clients {
			w.send(cmd("GET", "k"))
			eventually(t, "it is on its way", h.sessionOf(w).owes)
		}
		for _, w := range clients {
			s := h.sessionOf(w)
			w.Close() // it has waited long enough
			eventually(t, "that is seen", func() bool { return h.hasLeft(s) })
			w = h.dial()
			for range 10 {
				w.do(bulk("v"), "GET", "k")
			}
		}
	})
}

// Many clients that reconnect at once get one fresh lane together, in the place of the one that owes replies to what they left.
func TestManyWhoReconnectShareOneFreshLane(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	var clients [20]*wire
	for i := range clients {
		clients[i] = h.dial()
		clients[i].get("0")
	}
	stays := h.dial()
	stays.get("0")
	l := h.lane()
	head := b.hold("head")
	for i, w := range clients {
		w.send(cmd("GET", "head"))
		if i == 0 {
			<-head.reached
		}
		s := h.sessionOf(w)
		eventually(t, "it is on its way", s.owes)
		w.Close()
		eventually(t, "that is seen", func() bool { return h.hasLeft(s) })
	}
	stays.send(cmd("GET", "1")) // it rides the lane still, since nobody knows better
	eventually(t, "it waits", h.sessionOf(stays).owes)
	for range clients {
		h.dial().get("2")
	}
	if n := b.lanes(); n != 2 || len(h.openLanes()) != 1 || l.stateNow() != laneRetired {
		t.Errorf("%d lanes were dialled; open are %d", n, len(h.openLanes()))
	}
	head.release()
	stays.want(valueOf("1"))
}

// A lane that has answered what it owed to a client that has left carries everybody again.
func TestLaneThatHasAnsweredCarriesNewSessionsAgain(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.get("0")
	l := h.lane()
	held := b.hold("held")
	w.send(cmd("GET", "held"))
	<-held.reached
	s := h.sessionOf(w)
	w.Close()
	eventually(t, "that is seen", func() bool { return h.hasLeft(s) })
	held.release()
	eventually(t, "it has answered", func() bool { _, idle := l.idleAt(); return idle })
	h.dial().get("1")
	if n := b.lanes(); n != 1 {
		t.Errorf("%d lanes were dialled", n)
	}
}

// hasLeft reports whether the end of the session's client has been noticed.
func (h *harness) hasLeft(s *session) bool {
	left := s.ended() || s.pump.limit.Load() != 0
	for _, l := range h.lanes.Live() {
		left = left || inside[atomic.Int64](l, "abandoned").Load() != 0
	}
	return left
}
