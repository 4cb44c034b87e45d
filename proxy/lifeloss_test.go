package proxy

import (
	"fmt"
	"strings"
	"testing"

	"dragontls/proxy/proxytest"
)

// What keeps a session on its own connection for life.
var forLife = map[string]struct {
	proto   string
	command []string
	reply   string
	event   []string // what another one does
	told    string   // and the session is told, if anything
}{
	"SUBSCRIBE":         {"2", []string{"SUBSCRIBE", "c"}, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", []string{"PUBLISH", "c", "m"}, "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"},
	"SUBSCRIBE, RESP3":  {"3", []string{"SUBSCRIBE", "c"}, ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", []string{"PUBLISH", "c", "m"}, ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"},
	"PSUBSCRIBE":        {"2", []string{"PSUBSCRIBE", "c*"}, "*3\r\n$10\r\npsubscribe\r\n$2\r\nc*\r\n:1\r\n", []string{"PUBLISH", "c", "m"}, "*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$1\r\nm\r\n"},
	"PSUBSCRIBE, RESP3": {"3", []string{"PSUBSCRIBE", "c*"}, ">3\r\n$10\r\npsubscribe\r\n$2\r\nc*\r\n:1\r\n", []string{"PUBLISH", "c", "m"}, ">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$1\r\nm\r\n"},
	"MONITOR":           {"2", []string{"MONITOR"}, "+OK\r\n", nil, ""},
	"MONITOR, RESP3":    {"3", []string{"MONITOR"}, "+OK\r\n", nil, ""},
	"CLIENT TRACKING":   {"3", []string{"CLIENT", "TRACKING", "ON"}, "+OK\r\n", nil, ""},
}

// A session that is on its own connection for life ends with that, and without another word: nothing that it waits for
// would come any more. Sessions on lanes go on.
func TestLossEndsWhoIsOnItsOwnConnectionForLife(t *testing.T) {
	t.Parallel()
	for name, tt := range forLife {
		for loss, lose := range map[string]func(*proxytest.Dragonfly, *session){
			"its own connection": func(_ *proxytest.Dragonfly, s *session) { up, _ := s.upstreamNow(); up.Socket.Abort() },
			"all connections":    func(d *proxytest.Dragonfly, _ *session) { d.KillAll() },
			"all by reset": func(d *proxytest.Dragonfly, _ *session) {
				for _, id := range d.ConnIDs() {
					d.ResetConn(id)
				}
			},
		} {
			t.Run(name+" loses "+loss, func(t *testing.T) {
				t.Parallel()
				d := dragonfly(t, proxytest.Options{RequirePass: "secret"})
				h := start(t, d.Addr(), func(c *Config) {
					share(c)
					c.Backend.Credentials, c.unavailableTimeout = credentials("", "secret"), patience
				})
				w, other := h.dial(), h.dial()
				for _, w := range []*wire{w, other} {
					w.hello(tt.proto)
					h.pass(stayInterval)
					w.do("+OK\r\n", "SET", "k", "v")
				}
				h.wantOnLanes("SET", 2)
				w.do(tt.reply, tt.command...)
				if tt.event != nil {
					other.do(":1\r\n", tt.event...)
					w.want(tt.told)
				}
				h.pass(stayInterval)
				other.do("$1\r\nv\r\n", "GET", "k")
				s, lanes := h.sessionOf(w), h.openLanes()
				lose(d, s)
				got := w.wantEnd()
				for line := range strings.Lines(got) {
					if tt.command[0] != "MONITOR" || !strings.HasPrefix(line, "+") {
						t.Errorf("then %q", line)
					}
				}
				w.Close()
				eventually(t, "it is closed for the backend", func() bool {
					return h.closedFor(closeBackend)+h.closedFor(closeBackendError)+h.closedFor(closeClient) == 1
				})
				if strings.HasPrefix(loss, "all") {
					for _, l := range lanes {
						<-l.closed()
					}
				}
				for i := range 3 {
					other.goesOn("$1\r\nv\r\n", "GET", "k")
					other.goesOn("+OK\r\n", "SET", fmt.Sprint("k", i), "v")
				}
				if h.live() != 1 || !strings.HasPrefix(loss, "all") && lanes[0].stateNow() != laneOpen {
					t.Errorf("%d sessions, closed %v, the lane is in state %v", h.live(), h.Stats().SessionsClosed, lanes[0].stateNow())
				}
			})
		}
	}
}

// Half a message is out when the connection is lost: nothing follows it.
func TestLossInTheMiddleOfAMessage(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"*", ">"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w, other := settled(h), settled(h)
			subscribed := make(chan *laneConn, 1)
			b.on(func(c *laneConn, args []string) (string, bool) {
				if args[0] != "SUBSCRIBE" {
					return "", false
				}
				subscribed <- c
				return first + "3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" + first + "3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$10\r\nha", true
			})
			w.send(cmd("SUBSCRIBE", "c"))
			w.want(first + "3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" + first + "3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$10\r\nha")
			other.get("meanwhile")
			(<-subscribed).tcp.CloseWrite()
			w.endsUnanswered()
			w.Close()
			h.wantClosed(closeBackend, 1)
			other.get("afterwards")
			if b.lanes() != 1 {
				t.Errorf("%d lanes", b.lanes())
			}
		})
	}
}
