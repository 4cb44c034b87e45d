package proxy

import (
	"io"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// falls has the backend serve no new connection, in one of three ways: it refuses connections, accepts them and is silent, or
// answers as Redis does while it is loading its data. The last one also with a connection before that is closed without an answer.
func (b *laneBackend) falls(how string) {
	switch how {
	case "refuses":
		b.ln.Close()
	case "is silent":
		b.onAccept(func(*laneConn) { <-b.done })
	case "ends and is loading": // the first dial meets the process that ends
		b.falls("is loading")
		b.onAccept(func(c *laneConn) {
			b.onAccept(nil)
			c.Close()
		})
	case "is loading":
		b.on(func(_ *laneConn, args []string) (string, bool) {
			return sayLoading, !strings.Contains("AUTH HELLO SELECT CLIENT MULTI EXEC ECHO INFO", args[0]) // as Redis 7 does
		})
	}
}

const sayLoading = "-LOADING Redis is loading the dataset in memory\r\n"

// endsOnceItKnows sends n commands until the session ends without a reply to them. On a loaded machine no dial may have ended within
// outage: then nothing is known of the backend, and each command is answered as not sent.
func (w *wire) endsOnceItKnows(commands string, n int) {
	w.t.Helper()
	for range 10 {
		w.send(commands)
		w.SetReadDeadline(time.Now().Add(patience))
		if first, _ := w.r.Peek(1); len(first) == 0 {
			w.endsUnanswered()
			return
		}
		w.want(strings.Repeat(sayUnavailable, n))
	}
	w.t.Fatal("it is answered by errors for ever")
}

func commandsIn(s string) int { return strings.Count(s, "*") }

// A session that waits for nothing outlives the loss of its backend. If the backend has not come back when the client sends the
// next command, or is loading, the client gets what a direct connection would have given it: the end, and no error reply.
func TestSessionOfABackendThatIsGoneEndsWithoutAnError(t *testing.T) {
	t.Parallel()
	asks := map[string]string{
		"one":            cmd("SET", "k", "v"),
		"a pipeline":     strings.Repeat(cmd("SET", "k", "v"), 20),
		"a transaction":  cmd("MULTI") + cmd("SET", "k", "v") + cmd("EXEC"),
		"its own":        cmd("INFO"),
		"a big one":      cmd("SET", "k", bigArg),
		"unbounded":      cmd("HGETALL", "h"),
		"one that reads": cmd("GET", "k"),
	}
	for name, ask := range asks {
		for _, how := range []string{"refuses", "is loading", "ends and is loading"} {
			t.Run(name+", it "+how, func(t *testing.T) {
				t.Parallel()
				b, h, w := unconnected(t)
				b.falls(how)
				w.endsOnceItKnows(ask, commandsIn(ask))
				h.wantClosed(closeUnavailable, 1)
				if b.count("SET", "") != 0 {
					t.Error("it was run")
				}
			})
		}
	}
}

// A client that has connected since is told what the backend says.
func TestNewSessionIsToldThatTheBackendIsLoading(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	b.falls("is loading")
	w := h.dial()
	w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3")
	for range 3 {
		h.pass(stayInterval)
		w.do(sayLoading, "GET", "k")
	}
	b.on(nil)
	h.pass(laneBusyRetry)
	w.get("served")
	h.wantOnLanes("GET", 1)
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
	// From here on it has been served, and is told no more.
	h.closeUnused(h.sessionOf(w))
	eventually(t, "the lane is closed", func() bool { return len(h.openLanes()) == 0 })
	b.falls("is loading")
	w.send(cmd("GET", "k"))
	w.endsUnanswered()
}

// A session that has used no lane has been served by its own connection.
func TestSessionThatOwnConnectionsServedEndsWhileTheBackendIsLoading(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.do(bulk("info"), "INFO")
	s := h.sessionOf(w)
	h.closeUnused(s)
	eventually(t, "it has no connection", func() bool { return !s.hasOwn() })
	b.falls("is loading")
	w.send(cmd("INFO"))
	w.endsUnanswered()
	h.wantClosed(closeUnavailable, 1)
}

// A read that was on a lane when the backend was lost is not answered by the LOADING of the backend that has come back.
func TestReadThatIsToBeSentAgainIsNotToldThatTheBackendIsLoading(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := settled(h)
	onLane := b.hold("k")
	w.send(cmd("GET", "k"))
	<-onLane.reached
	b.falls("is loading")
	onLane.reply <- func(c *laneConn) string {
		c.reset()
		return ""
	}
	w.endsUnanswered()
	h.wantClosed(closeUnavailable, 1)
}

// What a client gets of a Dragonfly that has begun again and is loading: the end of a session from before, whatever it asks, and
// Dragonfly's own words where it has connected since, until the data is there.
func TestDragonflyThatIsLoadingHasItsOwnWordsForNewSessionsOnly(t *testing.T) {
	t.Parallel()
	const loading = "-LOADING Dragonfly is loading the dataset in memory\r\n"
	eachMode(t, func(t *testing.T, m mode) {
		for name, ask := range map[string]string{"on a lane": cmd("GET", "k"), "its own": cmd("SET", "k", bigArg)} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				d, err := proxytest.NewDragonfly(proxytest.Options{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(d.Close)
				h := m.start(t, d.Addr(), nil)
				before := h.dial()
				before.do("+OK\r\n", "SET", "k", "v")
				h.pass(stayInterval)
				before.do("$1\r\nv\r\n", "GET", "k")
				d.SetLoading(true)
				d.KillAll()
				eventually(t, "the lanes have ended", func() bool { return len(h.openLanes()) == 0 })
				io.WriteString(before, ask) // in mode paired the end may come first
				before.endsUnanswered()
				since := h.dial()
				for range 2 {
					since.do(loading, "GET", "k")
					h.pass(stayInterval)
				}
				d.SetLoading(false)
				h.pass(laneBusyRetry)
				since.do("$1\r\nv\r\n", "GET", "k")
			})
		}
	})
}

// In mode paired a session ends with its connection. In no mode does a client that the backend has served get an error of ours once
// the backend is gone.
func TestServedClientGetsNoErrorOfABackendThatIsGone(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		d, err := proxytest.NewDragonfly(proxytest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		h := m.start(t, d.Addr(), func(c *Config) { c.unavailableTimeout = outage })
		var w *wire
		for served := false; !served; {
			w = h.dial()
			w.send(cmd("PING"))
			first, err := w.r.Peek(1)
			served = err == nil && first[0] == '+' // on a loaded machine the backend may be given up
		}
		w.want("+PONG\r\n")
		d.Close()
		w.endsOnceItKnows(cmd("SET", "k", "v"), 1)
	})
}
