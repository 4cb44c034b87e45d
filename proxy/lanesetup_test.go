package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"sync"
	"testing"
)

// waysToRefuse end a connection while a lane is set up.
var waysToRefuse = map[string]func(*laneConn){
	"FIN":                      func(c *laneConn) { c.end() },
	"FIN without close_notify": func(c *laneConn) { c.w.Flush(); c.tcp.CloseWrite(); io.Copy(io.Discard, c.tcp) },
	"RST":                      func(c *laneConn) { c.reset() },
}

// A backend that closes while a lane is set up costs the key its lanes for a moment, and no session a command: own
// connections show whether it serves anybody.
func TestBackendThatClosesWhileALaneIsSetUp(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for name, way := range waysToRefuse {
			for _, at := range []string{"the handshake", "AUTH", "HELLO", "SELECT", "MULTI", "EXEC", "half of ECHO"} {
				if at == "the handshake" && !secure || !secure && name == "FIN without close_notify" {
					continue
				}
				t.Run(fmt.Sprint(at, " ", name, " TLS ", secure), func(t *testing.T) {
					t.Parallel()
					closesInSetUp(t, secure, at, way)
				})
			}
		}
	}
}

func closesInSetUp(t *testing.T, secure bool, at string, way func(*laneConn)) {
	var b *laneBackend
	var h *harness
	if secure {
		b, h = overTLS(t, tls.VersionTLS13)
	} else {
		b = newLaneBackend(t)
		h = b.start(nil)
	}
	w, other := h.dial(), h.dial()
	for _, w := range []*wire{w, other} {
		w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
		w.do("+OK\r\n", "SELECT", "7")
	}
	closes := func(c *laneConn, args []string) (string, bool) {
		switch {
		case !c.lane || len(c.commands()) > 7:
		case args[0] == "ECHO" && at == "half of ECHO":
			c.w.WriteString(bulk(args[1])[:10])
			way(c)
		case args[0] == at:
			c.w.WriteString(c.answer(args))
			way(c)
		}
		return "", false
	}
	b.on(closes)
	if at == "the handshake" {
		b.onAccept(way)
	}
	before := h.now()
	for _, w := range []*wire{w, other} {
		h.pass(stayInterval)
		w.do(bulk("7 3"), "HGET", "h", "f")
	}
	set := h.onlySet()
	if until := set.BarredUntil(); until < before.Add(laneBusyRetry) || until > h.now().Add(laneBusyRetry) {
		t.Errorf("no lanes for %v", until.Sub(before))
	}
	if n := len(h.Stats().SessionsClosed); n != 0 || h.Stats().CommandsLane["HGET"] != 0 || b.count("HGET", "f") != 2 {
		t.Errorf("sessions closed: %v; %d on lanes", h.Stats().SessionsClosed, h.Stats().CommandsLane["HGET"])
	}
	b.on(nil)
	b.onAccept(nil)
	h.pass(laneBusyRetry + stayInterval)
	for _, w := range []*wire{w, other} {
		w.do(bulk("7 3"), "HGET", "h", "f")
	}
	h.wantOnLanes("HGET", 2)
}

// A lane that is lost as soon as it is open costs those who took it an error.
func TestBackendThatClosesBehindTheSetUpOfALane(t *testing.T) {
	t.Parallel()
	for name, way := range waysToRefuse {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, h := overTLS(t, tls.VersionTLS13)
			all := []*wire{settled(h), settled(h)}
			l := h.lane()
			closed := make(chan struct{})
			var once sync.Once
			b.on(func(c *laneConn, args []string) (string, bool) {
				if c.lane && args[0] == "ECHO" && len(c.commands()) <= 7 {
					c.w.WriteString(bulk(args[1]))
					way(c)
					once.Do(func() { close(closed) })
				}
				return "", false
			})
			l.retire()
			<-l.closed()
			for _, w := range all {
				w.send(cmd("HGET", "h", "f"))
			}
			<-closed
			for _, w := range all { // whatever became of the lane, what only reads is sent again
				w.want(bulk("5 3"))
			}
			b.on(nil)
			for _, w := range all {
				w.goesOn(bulk("5 3"), "HGET", "h", "f")
			}
			if n := len(h.Stats().SessionsClosed); n != 0 {
				t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
			}
		})
	}
}
