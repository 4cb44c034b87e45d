package proxy

import (
	"fmt"
	"strings"
	"testing"
)

// While a lane owes a session a reply, whatever its own connection says is nothing that was asked. It never goes inside
// that reply, but before or behind it; who else is on the lane does not notice.
func TestOwnConnectionSaysNothingInsideALanesReply(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		says   string
		passed string // what of it the client gets
		goesOn bool   // the session does then
	}{
		"an error":      {says: "-ERR unasked\r\n", passed: "-ERR unasked\r\n"},
		"half an error": {says: "-ERR una"},
		"a reply":       {says: "+OK\r\n"},
		"a bulk":        {says: valueOf("x")},
		"half a bulk":   {says: "$10\r\nxx"},
		"a null":        {says: "_\r\n"},
		"garbage":       {says: "what\r\n"},
		"a push":        {says: ">2\r\n+a\r\n+b\r\n", passed: ">2\r\n+a\r\n+b\r\n", goesOn: true},
		"half a push":   {says: ">2\r\n+a\r\n", passed: ">2\r\n+a\r\n", goesOn: true},
	} {
		for _, half := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " in the middle", false: " before it"}[half], func(t *testing.T) {
				t.Parallel()
				b := newLaneBackend(t)
				h := b.start(nil)
				w, other, third := settled(h), settled(h), settled(h)
				said := make(chan struct{})
				say := b.infoThen(w, func(c *laneConn) {
					c.w.WriteString(tt.says)
					c.w.Flush()
					close(said)
				})
				h.pass(stayInterval)
				l := h.lane()
				onLane, rest := b.hold("on lane"), make(chan struct{})
				w.send(cmd("GET", "on lane"))
				<-onLane.reached
				other.send(cmd("GET", "behind"))
				eventually(t, "both are in flight and written", func() bool { return l.written() == 2 })
				reply, cut := valueOf("on lane"), 0
				if half {
					cut = 9
				}
				onLane.reply <- func(c *laneConn) string {
					c.w.WriteString(reply[:cut])
					c.w.Flush()
					select {
					case <-rest:
					case <-b.done:
					}
					return reply[cut:]
				}
				w.want(reply[:cut])
				close(say)
				<-said
				if half {
					for range 20 { // it would be passed on meanwhile
						third.do(bulk("info"), "INFO")
					}
					close(rest)
					w.want(reply[cut:])
				}
				if tt.goesOn {
					w.want(tt.passed)
					if !half {
						close(rest)
					}
					other.want(valueOf("behind"))
					if strings.HasPrefix(name, "half") {
						b.connsWith(false, "INFO")[0].tcp.CloseWrite()
						if got := w.wantEnd(); got != "" { // it may not come inside the push
							t.Errorf("got %q", got)
						}
						return
					}
					if !half {
						w.want(reply)
					}
					w.get("goes on")
					return
				}
				got := w.wantEnd()
				if got != tt.passed {
					t.Errorf("got %q", got)
				}
				w.Close()
				h.wantClosed(closeBackendError, 1)
				if !half {
					close(rest)
				}
				other.want(valueOf("behind"))
				other.get("on the same lane")
				if b.lanes() != 1 || h.closedFor(closeLane) != 0 {
					t.Errorf("%d lanes, %d sessions closed with one", b.lanes(), h.closedFor(closeLane))
				}
			})
		}
	}
}

// Pushes come between the replies of a lane, by whoever they are passed on.
func TestPushesOfTheOwnConnectionBesideALane(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := settled(h)
	const push = ">1\r\n+p\r\n"
	say := b.infoThen(w, func(c *laneConn) {
		for range 1000 {
			c.w.WriteString(push)
			c.w.Flush()
		}
	})
	h.pass(stayInterval)
	close(say)
	for i := range 300 {
		key := fmt.Sprint(i)
		w.send(cmd("GET", key))
		for {
			if first, err := w.r.Peek(1); err != nil {
				t.Fatal(err)
			} else if first[0] != '>' {
				break
			}
			w.want(push)
		}
		w.want(valueOf(key))
	}
	h.wantOnLanes("GET", 300)
}
