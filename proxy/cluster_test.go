package proxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
)

// elsewhereReplies are what a node of a Redis cluster answers for keys that it does not serve now, or not together.
var elsewhereReplies = []string{
	"-CROSSSLOT Keys in request don't hash to the same slot\r\n", "-MOVED 3999 127.0.0.1:6381\r\n", "-ASK 3999 127.0.0.1:6381\r\n",
	"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "-CLUSTERDOWN The cluster is down\r\n", "-CLUSTERDOWN Hash slot not served\r\n",
	"-CLUSTERDOWN The cluster is down and only accepts read commands\r\n",
}

// The answer of a cluster to EXEC discards the transaction: the lane goes on.
func TestExecThatBelongsElsewhereKeepsTheLane(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w, other := h.dial(), h.dial()
	w.get("0")
	other.get("1")
	l := h.lane()
	for _, reply := range append([]string{"*-1\r\n", "$-1\r\n"}, elsewhereReplies...) { // aborted: Dragonfly's main, and v1.40.1
		b.on(func(c *laneConn, args []string) (string, bool) {
			if args[0] != "EXEC" {
				return "", false
			}
			c.multi = false
			return reply, true
		})
		l.nonces(true)
		w.send(cmd("MULTI") + cmd("SET", "k", "v") + cmd("EXEC"))
		w.want("+OK\r\n+QUEUED\r\n" + reply)
		other.get("goes on")
		w.get("goes on too")
	}
	if h.lane() != l || b.lanes() != 1 || len(h.Stats().SessionsClosed) > 0 {
		t.Errorf("%d lanes, sessions closed: %v", b.lanes(), h.Stats().SessionsClosed)
	}
}

// What only looks like such an answer closes the lane.
func TestExecWithAnotherErrorEndsTheLane(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"-MOVEDX 1\r\n", "-ASKING no\r\n", "-ERR MOVED 1 a:1\r\n", "-CLUSTERDOWN\r\n", "-moved 1 a:1\r\n", "+MOVED 1 a:1\r\n"} {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w := h.dial()
			w.get("0")
			b.on(func(_ *laneConn, args []string) (string, bool) { return reply, args[0] == "EXEC" })
			w.send(cmd("MULTI") + cmd("SET", "k", "v") + cmd("EXEC"))
			if got := w.wantEnd(); strings.Contains(got, reply) {
				t.Errorf("got %q", got)
			}
			h.wantClosed(closeLane, 1)
		})
	}
}

// On its own connection such an EXEC ends what MULTI and WATCH began: the session rides lanes again.
func TestExecThatBelongsElsewhereLeavesNoSessionSticky(t *testing.T) {
	t.Parallel()
	replies := append([]string{"-EXECABORT Transaction discarded because of previous errors.\r\n", "*0\r\n", "*-1\r\n"}, elsewhereReplies...)
	for _, reply := range replies {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w := h.dial()
			w.get("0")
			b.on(func(c *laneConn, args []string) (string, bool) {
				if args[0] != "EXEC" || c.lane {
					return "", false
				}
				c.multi = false
				return reply, true
			})
			w.do("+OK\r\n", "WATCH", "k")
			w.do("+OK\r\n", "MULTI")
			w.do("+QUEUED\r\n", "SET", "k", "v")
			w.do(reply, "EXEC")
			s := h.sessionOf(w)
			eventually(t, "nothing is owed", func() bool { return !s.owes() })
			if s.sticky() || s.keepsOwn() {
				t.Errorf("sticky %v, own for life %v", s.sticky(), s.keepsOwn())
			}
			h.pass(stayInterval)
			w.get("on a lane")
			h.wantOnLanes("GET", 2)
		})
	}
}

// cluster is two nodes of a real Redis cluster of which the first has the slots below 8192.
type cluster struct {
	sockets   [2]string
	announced [2]string
	admins    [2]*wire
	ids       [2]string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := new(cluster)
	for i := range c.sockets {
		// Each node has a loopback address of its own, and so the port of its bus for itself.
		host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		c.announced[i] = host + ":7000"
		c.sockets[i] = redisServer(t, "--cluster-enabled", "yes", "--bind", host, "--cluster-announce-ip", host, "--cluster-announce-port", "7000",
			"--cluster-announce-bus-port", "10000", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "60000")
		c.admins[i] = dialPlain(t, c.sockets[i])
		c.admins[i].send(cmd("CLUSTER", "MYID"))
		c.admins[i].line()
		c.ids[i] = strings.TrimSpace(c.admins[i].line())
	}
	c.admins[0].do("+OK\r\n", "CLUSTER", "ADDSLOTSRANGE", "0", "8191")
	c.admins[1].do("+OK\r\n", "CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
	host, port, _ := net.SplitHostPort(c.announced[1])
	c.admins[0].do("+OK\r\n", "CLUSTER", "MEET", host, port, "10000")
	eventually(t, "the nodes know each other", func() bool {
		for i, w := range c.admins {
			if !strings.Contains(w.ask("CLUSTER", "NODES"), c.ids[1-i]) || !strings.Contains(w.ask("CLUSTER", "INFO"), "cluster_state:ok\r\ncluster_slots_assigned:16384") {
				return false
			}
		}
		return true
	})
	return c
}

// ask returns the reply to a command that is answered by a bulk.
func (w *wire) ask(args ...string) string {
	w.t.Helper()
	w.send(cmd(args...))
	var n int
	if _, err := fmt.Sscanf(w.line(), "$%d", &n); err != nil {
		w.t.Fatal(err)
	}
	return w.readUpTo(n + 2)[:n]
}

// A real cluster discards the transaction with each of these answers.
func TestRealClusterDiscardsWhatBelongsElsewhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const key, second, slot = "{b}1", "{b}2", "3300"
	admin := c.admins[0]
	moved := fmt.Sprintf("-MOVED %s %s\r\n", slot, c.announced[1])
	for _, tt := range []struct {
		name   string
		before func()
		within []string
		reply  string
		after  func()
	}{
		{name: "MOVED", before: func() { admin.do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "NODE", c.ids[1]) }, reply: moved,
			after: func() { admin.do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "NODE", c.ids[0]) }},
		{name: "ASK", before: func() { admin.do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[1]) }, reply: strings.Replace(moved, "MOVED", "ASK", 1),
			after: func() { admin.do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "STABLE") }},
		{name: "TRYAGAIN", before: func() {
			admin.do("+OK\r\n", "SET", second, "v")
			admin.do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[1])
		}, reply: elsewhereReplies[3], within: []string{"MGET", key, second}, after: func() {
			admin.do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "STABLE")
			admin.do(":1\r\n", "DEL", second)
		}},
		{name: "CLUSTERDOWN", before: func() { admin.do("+OK\r\n", "CLUSTER", "DELSLOTS", slot) }, reply: elsewhereReplies[5],
			after: func() { admin.do("+OK\r\n", "CLUSTER", "ADDSLOTS", slot) }},
		{name: "CROSSSLOT", before: func() {}, within: []string{"GET", "{a}1"}, reply: "", after: func() {}},
	} {
		for _, m := range []mode{{name: "shared", shared: true}, {name: "paired"}} {
			t.Run(tt.name+" "+m.name, func(t *testing.T) {
				h := m.start(t, c.sockets[0], nil)
				w := h.dial()
				within := tt.within
				if within == nil {
					within = []string{"GET", key}
				}
				w.do("$-1\r\n", "GET", "{b}none")
				w.do("+OK\r\n", "WATCH", key)
				w.do("+OK\r\n", "MULTI")
				w.do("+QUEUED\r\n", "GET", key)
				if tt.name == "CROSSSLOT" {
					w.do(fmt.Sprintf("-MOVED 15495 %s\r\n", c.announced[1]), within...)
					w.do("-EXECABORT Transaction discarded because of previous errors.\r\n", "EXEC")
				} else {
					w.do("+QUEUED\r\n", within...)
					tt.before()
					w.do(tt.reply, "EXEC")
					tt.after()
				}
				w.do("-ERR EXEC without MULTI\r\n", "EXEC") // and it watches nothing any more
				w.do("$-1\r\n", "GET", "{b}none")
			})
		}
	}
	// Two slots of one node, and a whole transaction in one write: it rides a lane.
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, c.sockets[0], nil)
		w := h.dial()
		w.do("$-1\r\n", "GET", "{b}none")
		h.pass(stayInterval)
		for range 3 {
			w.send(cmd("MULTI") + cmd("SET", "{b}x", "1") + cmd("SET", "{bar}x", "1") + cmd("EXEC"))
			w.want("+OK\r\n+QUEUED\r\n+QUEUED\r\n" + elsewhereReplies[0])
			w.do("$-1\r\n", "GET", "{b}x")
		}
		if m.shared {
			h.wantOnLanes("EXEC", 3)
			if n := h.Stats().BackendDials; n > 4 {
				t.Errorf("%d connections were dialled", n)
			}
		}
		if n := len(h.Stats().SessionsClosed); n != 0 {
			t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
		}
	})
}

// ASKING holds for the next command alone, whenever that comes; then the session rides lanes again.
func TestAskingHoldsForTheNextCommandAlone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const key, slot = "{b}1", "3300"
	c.admins[0].do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[1])
	c.admins[1].do("+OK\r\n", "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[0])
	moved := fmt.Sprintf("-MOVED %s %s\r\n", slot, c.announced[0])
	eachModeAlone(t, func(t *testing.T, m mode) {
		h := m.start(t, c.sockets[1], func(c *Config) { c.Backend.Lanes = 1 })
		w := h.dial()
		wait := func() {
			h.pass(laneIdle + stayInterval)
			h.sweepUnused()
		}
		w.do("$-1\r\n", "GET", "foo")
		wait()
		w.do(moved, "GET", key)
		for range 3 {
			w.do("+OK\r\n", "ASKING")
			wait()
			w.do("$-1\r\n", "GET", key)
			w.do(moved, "GET", key)
			wait()
			w.do(moved, "GET", key)
		}
		pipeline := strings.Repeat(cmd("ASKING")+cmd("GET", key), 3) + cmd("GET", key)
		w.send(pipeline)
		w.want(strings.Repeat("+OK\r\n$-1\r\n", 3) + moved)
		w.send(cmd("ASKING") + cmd("MULTI") + cmd("GET", key) + cmd("EXEC") + cmd("GET", key))
		w.want("+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n" + moved)
		big := strings.Repeat("x", maxHeld)
		w.send(cmd("ASKING") + cmd("SETEX", key, "9", big) + cmd("GET", key))
		w.want("+OK\r\n+OK\r\n" + moved)
		w.send(cmd("ASKING") + cmd("DEL", key) + cmd("DEL", key))
		w.want("+OK\r\n:1\r\n" + moved)
		if m.shared {
			wait()
			s := h.sessionOf(w)
			if s.keepsOwn() || s.sticky() {
				t.Errorf("own for life %v, sticky %v", s.keepsOwn(), s.sticky())
			}
		}
		// Keys that are watched meanwhile stay watched.
		w.do("+OK\r\n", "ASKING")
		w.do("+OK\r\n", "WATCH", "foo")
		w.do("$-1\r\n", "GET", "foo")
		wait()
		c.admins[1].do("+OK\r\n", "SET", "foo", "x")
		w.send(cmd("MULTI") + cmd("GET", "foo") + cmd("EXEC"))
		w.want("+OK\r\n+QUEUED\r\n*-1\r\n")
		c.admins[1].do(":1\r\n", "DEL", "foo")
		w.do("+OK\r\n", "WATCH", "foo")
		w.do("+OK\r\n", "ASKING")
		w.do("$-1\r\n", "GET", key)
		wait()
		c.admins[1].do("+OK\r\n", "SET", "foo", "x")
		w.send(cmd("MULTI") + cmd("GET", "foo") + cmd("EXEC"))
		w.want("+OK\r\n+QUEUED\r\n*-1\r\n")
		c.admins[1].do(":1\r\n", "DEL", "foo")
		if n := len(h.Stats().SessionsClosed); n != 0 {
			t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
		}
	})
}

// READONLY decides which lanes a session uses, and its own connection is given it when it is opened again.
func TestReadonlyIsRememberedAndGoesWithTheSession(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	b.on(func(c *laneConn, args []string) (string, bool) {
		switch args[0] {
		case "READONLY", "READWRITE":
			if len(args) != 1 {
				return "-ERR wrong number of arguments\r\n", true
			}
			return "+OK\r\n", true
		case "HGET", "INFO":
			mode := "READWRITE"
			for _, got := range c.commands() {
				if len(got) == 1 && strings.HasPrefix(got[0], "READ") {
					mode = got[0]
				}
				if got[0] == "RESET" {
					mode = "READWRITE"
				}
			}
			return bulk(mode), true
		}
		return "", false
	})
	h := b.start(func(c *Config) { c.Backend.Credentials = nil })
	w, other := h.dial(), h.dial()
	for _, w := range []*wire{w, other} {
		w.do(bulk("READWRITE"), "INFO")
	}
	onALane := uint64(0)
	both := func(mode string) {
		t.Helper()
		h.pass(stayInterval)
		h.closeOwnOf(w)
		w.do(bulk(mode), "HGET", "h", "f")
		other.do(bulk("READWRITE"), "HGET", "h", "f")
		onALane += 2
		h.wantOnLanes("HGET", int(onALane))
		w.do(bulk(mode), "INFO")
	}
	both("READWRITE")
	w.do("+OK\r\n", "READONLY")
	both("READONLY")
	w.do("-ERR wrong number of arguments\r\n", "READWRITE", "x")
	both("READONLY")
	w.do("+OK\r\n", "READWRITE")
	both("READWRITE")
	w.do("+OK\r\n", "READONLY")
	both("READONLY")
	w.do("+RESET\r\n", "RESET")
	both("READWRITE")
	if n := len(h.Stats().SessionsClosed); n != 0 || h.sessionOf(w).keepsOwn() {
		t.Errorf("sessions closed: %v, or it keeps its own connection", h.Stats().SessionsClosed)
	}
}
