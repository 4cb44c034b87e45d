package proxy

import (
	"net"
	"slices"
	"strings"
	"testing"

	"dragontls/proxy/backend"
	"dragontls/proxy/proxytest"
)

// twoBackends are at one port of two addresses, of which the name has the first.
func twoBackends(t *testing.T) (h *harness, first, second *laneBackend, n *proxytest.Resolver) {
	t.Helper()
	addrs := reserve(t, "127.0.0.1", "127.0.0.2")
	first, second = newLaneBackendOn(t, addrs[0]), newLaneBackendOn(t, addrs[1])
	_, port, _ := net.SplitHostPort(addrs[0])
	n = proxytest.NewResolver("127.0.0.1")
	j := &judgement{}
	h = start(t, net.JoinHostPort("backend.test", port), func(c *Config) {
		c.Backend.Shared, c.Backend.Credentials, c.Recheck = true, credentials("", "secret"), j.recheck
		c.unavailableTimeout, c.lookup = patience, n.Lookup
	})
	return h, first, second, n
}

// A refused dial has the name resolved again; another address ends what belongs to the last one.
func TestBackendThatMovesEndsWhatBelongsToItsLastAddress(t *testing.T) {
	t.Parallel()
	h, first, second, n := twoBackends(t)
	quiet, own, busy, sticky, ownForLife, blocked := h.dialAs("a"), h.dialAs("a"), h.dialAs("a"), h.dialAs("a"), h.dialAs("a"), h.dialAs("a")
	for _, w := range []*wire{quiet, own, busy, sticky, ownForLife, blocked} {
		w.get("0")
	}
	own.do(bulk("info"), "INFO")
	sticky.do("+OK\r\n", "WATCH", "k")
	ownForLife.do("+OK\r\n", "CLIENT", "ID")
	held := first.hold("held")
	busy.send(cmd("GET", "held"))
	<-held.reached
	info := first.hold("info")
	own.send(cmd("INFO", "info"))
	<-info.reached
	first.hold("0.1")
	blocked.send(cmd("BLPOP", "q", "0.1"))
	eventually(t, "it blocks", func() bool { return first.count("BLPOP", "") == 1 })

	first.ln.Close()
	n.Set("127.0.0.2")
	h.dialAs("b").get("at the second") // its lane is refused at the first
	if second.count("GET", "at the second") != 1 {
		t.Fatal("not at the second")
	}
	for _, w := range []*wire{sticky, ownForLife, blocked} {
		w.endsUnanswered()
		w.Close()
	}
	h.wantClosed(closeMoved, 3)
	if n := h.Stats().BackendRecoveries["moved"]; n != 1 {
		t.Errorf("counted %d moves", n)
	}
	held.release()
	busy.want(valueOf("held"))
	info.release()
	own.want(bulk("info"))
	eventually(t, "its own connection is closed", func() bool { return !h.sessionOf(own).hasOwn() })
	own.do(bulk("info"), "INFO", "second")
	for _, w := range []*wire{quiet, busy} {
		w.get("second")
	}
	if second.count("GET", "second") != 2 || second.count("INFO", "second") != 1 {
		t.Error("somebody is at the first address still")
	}
}

// An address is kept as long as it is in the answer and accepts.
func TestBackendKeepsItsAddress(t *testing.T) {
	t.Parallel()
	h, first, second, n := twoBackends(t)
	w := h.dialAs("a")
	w.get("0")
	n.Set("127.0.0.2", "127.0.0.1")
	h.backend.Suspect(&backend.Conn{})
	before := n.Asked()
	eventually(t, "it was resolved again", func() bool { return n.Asked() > before })
	h.dialAs("b").get("1")
	w.get("2")
	if first.count("GET", "") != 3 || second.count("GET", "") != 0 || len(h.Stats().SessionsClosed) != 0 {
		t.Error("the address was not kept")
	}
}

// A replica is not what the name should lead to: the name is asked again.
func TestReadonlyHasTheNameResolvedAgain(t *testing.T) {
	t.Parallel()
	h, first, second, n := twoBackends(t)
	first.on(func(_ *laneConn, args []string) (string, bool) {
		return "-READONLY You can't write against a read only replica.\r\n", args[0] == "SET"
	})
	w := h.dialAs("a")
	w.get("0")
	n.Set("127.0.0.2")
	w.do("-READONLY You can't write against a read only replica.\r\n", "SET", "k", "v")
	eventually(t, "the backend moves", func() bool {
		moves, _ := h.backend.DialledBeforeMove(&backend.Conn{})
		return moves == 1
	})
	c, err := h.backend.Dial(t.Context(), backend.Login{Credentials: credentials("", "secret")})
	if err != nil {
		t.Fatal(err)
	}
	if at := c.Stream.RemoteAddr().String(); !strings.HasPrefix(at, "127.0.0.2") {
		t.Errorf("the backend is at %s", at)
	}
	c.Drop()
	eventually(t, "the lanes to the first are gone", func() bool {
		return !slices.ContainsFunc(h.openLanes(), func(l aLane) bool { _, before := h.backend.DialledBeforeMove(l.up()); return before })
	})
	w.do("+OK\r\n", "SET", "k", "v")
	if second.count("SET", "k") != 0 || second.count("SET", "v") != 1 {
		t.Error("not at the second")
	}
	h.wantOnLanes("SET", 2)
}

// A connection to the last address that was being opened when the backend moved ends like those that were there.
func TestConnectionThatIsOpenedWhileTheBackendMovesEnds(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{"a lane": "GET", "an own one": "INFO"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, first, second, n := twoBackends(t)
			h.wantReady(true, "") // the prober's is there
			w := h.dialAs("a")
			held := first.hold("secret") // at AUTH
			w.send(cmd(command, "0"))
			<-held.reached
			first.ln.Close()
			n.Set("127.0.0.2")
			h.dialAs("b").get("at the second")
			held.release()
			reply := map[string]string{"GET": valueOf("0"), "INFO": bulk("info")}
			w.want(reply[command])
			eventually(t, "it is at the second", func() bool {
				w.send(cmd(command, "0")) // a connection that is used is not closed for being idle
				w.want(reply[command])
				return second.count(command, "0") > 0
			})
			if n := len(h.Stats().SessionsClosed); n != 0 {
				t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
			}
		})
	}
}
