package proxy

import (
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dragontls/certs/pki"
)

// What a session does, and whether it keeps its own connection from then on.
var whatPins = map[string]struct {
	commands [][]string
	replies  map[string]string // by first word, where the backend's is not that of laneBackend
	pins     bool
}{
	"INFO":                                 {commands: [][]string{{"INFO"}}},
	"SELECT":                               {commands: [][]string{{"SELECT", "0"}}},
	"SELECT that fails":                    {commands: [][]string{{"SELECT", "99"}}, replies: map[string]string{"SELECT": "-ERR DB index is out of range\r\n"}},
	"SELECT without a number":              {commands: [][]string{{"SELECT"}}, replies: map[string]string{"SELECT": "-ERR wrong number\r\n"}},
	"SELECT in another way":                {commands: [][]string{{"SELECT", "+1"}}, pins: true},
	"HELLO":                                {commands: [][]string{{"HELLO", "2"}}},
	"HELLO alone":                          {commands: [][]string{{"HELLO"}}},
	"HELLO of another version":             {commands: [][]string{{"HELLO", "4"}}, pins: true},
	"a name":                               {commands: [][]string{{"CLIENT", "SETNAME", "x"}, {"client", "setinfo", "lib-name", "x"}, {"CLIENT", "SETINFO", "LIB-VER", "1"}}},
	"a long name":                          {commands: [][]string{{"CLIENT", "SETNAME", strings.Repeat("x", maxRemembered+1)}}, pins: true},
	"CLIENT MAINT_NOTIFICATIONS refused":   {commands: [][]string{{"CLIENT", "MAINT_NOTIFICATIONS", "ON"}}, replies: map[string]string{"CLIENT": "-ERR unknown subcommand\r\n"}},
	"CLIENT MAINT_NOTIFICATIONS accepted":  {commands: [][]string{{"CLIENT", "MAINT_NOTIFICATIONS", "ON"}}, pins: true},
	"CLIENT ID":                            {commands: [][]string{{"CLIENT", "ID"}}, pins: true},
	"CLIENT GETNAME":                       {commands: [][]string{{"CLIENT", "GETNAME"}, {"client", "getname", "x"}}},
	"CLIENT LIST":                          {commands: [][]string{{"CLIENT", "LIST"}, {"CLIENT", "LIST", "TYPE", "normal"}}},
	"CLIENT INFO":                          {commands: [][]string{{"CLIENT", "INFO"}}},
	"CLIENT GETREDIR":                      {commands: [][]string{{"CLIENT", "GETREDIR"}}},
	"CLIENT TRACKINGINFO":                  {commands: [][]string{{"CLIENT", "TRACKINGINFO"}}},
	"CLIENT HELP":                          {commands: [][]string{{"CLIENT", "HELP"}}},
	"CLIENT NO-EVICT":                      {commands: [][]string{{"CLIENT", "NO-EVICT", "ON"}}, pins: true},
	"CLIENT TRACKING, even refused":        {commands: [][]string{{"CLIENT", "TRACKING", "ON"}}, replies: map[string]string{"CLIENT": "-ERR no\r\n"}, pins: true},
	"an unknown command":                   {commands: [][]string{{"NOSUCH", "x"}}},
	"an unknown command that is answered":  {commands: [][]string{{"NOSUCH", "x"}}, replies: map[string]string{"NOSUCH": "+OK\r\n"}, pins: true},
	"a name with a blank":                  {commands: [][]string{{"GET ", "x"}}, replies: map[string]string{"GET ": "$-1\r\n"}, pins: true},
	"a harmless script":                    {commands: [][]string{{"EVAL", "return redis.call('GET', KEYS[1])", "1", "k"}}, replies: map[string]string{"EVAL": "$-1\r\n"}},
	"a script that may do anything":        {commands: [][]string{{"EVAL", "return redis.call(ARGV[1])", "0"}}, replies: map[string]string{"EVAL": "$-1\r\n"}, pins: true},
	"the same, failing":                    {commands: [][]string{{"EVAL", "return redis.call(ARGV[1])", "0"}}, replies: map[string]string{"EVAL": "-ERR x\r\n"}, pins: true},
	"a script that SELECTs":                {commands: [][]string{{"EVAL", "redis.call('select', 1)", "0"}}, replies: map[string]string{"EVAL": "$-1\r\n"}, pins: true},
	"EVALSHA that nobody knows":            {commands: [][]string{{"EVALSHA", sha("x"), "0"}}, replies: map[string]string{"EVALSHA": "-NOSCRIPT No matching script. Please use EVAL.\r\n"}},
	"EVALSHA of a script not seen":         {commands: [][]string{{"EVALSHA", sha("x"), "0"}}, replies: map[string]string{"EVALSHA": "$-1\r\n"}, pins: true},
	"EVALSHA of a script not seen fails":   {commands: [][]string{{"EVALSHA", sha("x"), "0"}}, replies: map[string]string{"EVALSHA": "-ERR x\r\n"}, pins: true},
	"EVALSHA of a harmless script":         {commands: [][]string{{"SCRIPT", "LOAD", "return 1"}, {"EVALSHA", sha("return 1"), "0"}}, replies: map[string]string{"SCRIPT": "+x\r\n", "EVALSHA": ":1\r\n"}},
	"EVALSHA of a script that SELECTs":     {commands: [][]string{{"SCRIPT", "LOAD", "redis.call('SELECT',1)"}, {"EVALSHA", sha("redis.call('SELECT',1)"), "0"}}, replies: map[string]string{"SCRIPT": "+x\r\n", "EVALSHA": ":1\r\n"}, pins: true},
	"FCALL":                                {commands: [][]string{{"FCALL", "f", "0"}}, replies: map[string]string{"FCALL": ":1\r\n"}, pins: true},
	"WATCH and UNWATCH":                    {commands: [][]string{{"WATCH", "k"}, {"UNWATCH"}}},
	"WATCH, a transaction":                 {commands: [][]string{{"WATCH", "k"}, {"GET", "k"}, {"MULTI"}, {"GET", "k"}, {"EXEC"}}},
	"a transaction in pieces":              {commands: [][]string{{"MULTI"}, {"GET", "k"}, {"EXEC"}}},
	"a transaction without EXEC's success": {commands: [][]string{{"MULTI"}, {"EXEC"}}, replies: map[string]string{"EXEC": "-ERR no\r\n"}, pins: true},
	"DISCARD":                              {commands: [][]string{{"MULTI"}, {"GET", "k"}, {"DISCARD"}}},
	"DISCARD that fails":                   {commands: [][]string{{"MULTI"}, {"DISCARD"}}, replies: map[string]string{"DISCARD": "-NOPERM no\r\n"}, pins: true},
	"EXEC with an argument":                {commands: [][]string{{"MULTI"}, {"EXEC", "x"}}, replies: map[string]string{"EXEC": "-ERR wrong number\r\n"}, pins: true},
	"HELLO inside a transaction":           {commands: [][]string{{"MULTI"}, {"HELLO", "3"}, {"EXEC"}}, pins: true},
	"SELECT inside a transaction":          {commands: [][]string{{"MULTI"}, {"SELECT", "1"}, {"EXEC"}}, pins: true},
	"SELECT while keys are watched":        {commands: [][]string{{"WATCH", "k"}, {"SELECT", "1"}, {"UNWATCH"}}, pins: true},
	"WATCH inside a transaction":           {commands: [][]string{{"MULTI"}, {"WATCH", "k"}, {"EXEC"}}, pins: true},
	"RESET":                                {commands: [][]string{{"RESET"}}},
	"RESET that fails":                     {commands: [][]string{{"RESET"}}, replies: map[string]string{"RESET": "-ERR unknown command\r\n"}},
}

func TestWhatPinsASessionToItsOwnConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range whatPins {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			b.on(func(_ *laneConn, args []string) (string, bool) {
				switch args[0] {
				case "PING":
					return "+PONG\r\n", true
				case "HGET":
					return ":1\r\n", true
				}
				reply, ok := tt.replies[args[0]]
				return reply, ok
			})
			h := b.start(nil)
			w := h.dial()
			w.do("+PONG\r\n", "PING")
			for _, args := range tt.commands {
				w.send(cmd(args...))
			}
			w.send(cmd("PING"))
			for {
				line, err := w.r.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if line == "+PONG\r\n" {
					break
				}
			}
			s := h.sessionOf(w)
			if got := s.keepsOwn(); got != tt.pins {
				t.Errorf("own for life: %v, want %v", got, tt.pins)
			}
			before := h.Stats().CommandsLane["HGET"]
			h.pass(stayInterval)
			w.do(":1\r\n", "HGET", "h", "f")
			if tt.pins {
				if got := h.Stats().CommandsLane["HGET"]; got != before {
					t.Error("it rode a lane")
				}
			} else {
				h.wantOnLanes("HGET", int(before)+1)
			}
		})
	}
}

// A session is on one connection at a time. The backend is slow on the lane, and would have all the time to answer on the
// own connection meanwhile.
func TestSessionChangesItsConnectionWhenNothingIsOwed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first, second []string
		lane          bool // the first rides one
	}{
		"from a lane to its own":     {[]string{"GET", "first"}, []string{"INFO", "second"}, true},
		"from a lane to another one": {[]string{"GET", "first"}, []string{"HGETALL", "second"}, true},
		"from its own to a lane":     {[]string{"INFO", "first"}, []string{"GET", "second"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			h := b.start(nil)
			w, other := h.dial(), h.dial()
			w.get("0")
			var answered atomic.Bool
			b.on(func(_ *laneConn, args []string) (string, bool) {
				if args[len(args)-1] != "second" {
					return "", false
				}
				if !answered.Load() {
					t.Error("the second command came before the reply to the first")
				}
				return "$6\r\nsecond\r\n", true
			})
			first := b.hold("first")
			w.send(cmd(tt.first...))
			<-first.reached
			h.ahead.Add(stayInterval)
			read := h.Stats().BytesIn
			w.send(cmd(tt.second...))
			eventually(t, "the second was read", func() bool { return h.Stats().BytesIn > read })
			for range 50 { // the second would come meanwhile, if it did not wait
				other.do(bulk("info"), "INFO")
			}
			first.reply <- func(*laneConn) string {
				answered.Store(true)
				return "$5\r\nfirst\r\n"
			}
			w.want("$5\r\nfirst\r\n$6\r\nsecond\r\n")
		})
	}
}

// An error may quote an argument: what holds a line break does not ride a lane.
func TestLineBreakKeepsACommandFromLanes(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	w.do("+OK\r\n", "EXPIRE", "k", "10")
	h.wantOnLanes("EXPIRE", 1)
	for _, arg := range []string{"\r\n", "10\n", "\r", "10\r\n+OK\r\n"} {
		w.do("+OK\r\n", "EXPIRE", "k", arg)
		h.pass(stayInterval)
		w.do(valueOf("a\r\nb"), "GET", "a\r\nb")
	}
	if got := h.Stats().CommandsLane["EXPIRE"]; got != 1 || b.count("EXPIRE", "") != 5 {
		t.Errorf("EXPIRE with a line break rode a lane %d times", got-1)
	}
	h.wantOnLanes("GET", 4)
}

func TestErrorToAStateCommandClosesTheOwnConnection(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"SELECT": {"SELECT", "99"}, "an unknown command": {"NOSUCH"}, "CLIENT": {"CLIENT", "MAINT_NOTIFICATIONS", "ON"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			b.on(func(_ *laneConn, got []string) (string, bool) {
				return "-ERR no\r\n", slices.Equal(got, args)
			})
			h := b.start(nil)
			w := h.dial()
			w.do(bulk("info"), "INFO")
			w.send(cmd(args...) + cmd("INFO", "in the same batch"))
			w.want("-ERR no\r\n" + bulk("info"))
			s := h.sessionOf(w)
			eventually(t, "it is closed", func() bool { return !s.hasOwn() })
			w.do(bulk("info"), "INFO", "afterwards")
			for _, c := range b.connsWith(false, args[0]) {
				for _, got := range c.commands() {
					if got[len(got)-1] == "afterwards" {
						t.Error("the connection is used still")
					}
				}
			}
		})
	}
}

func TestOwnConnectionIsGivenWhatTheSessionHasSet(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.Backend.SetName = true })
	w := h.dial()
	w.do("%1\r\n$5\r\nproto\r\n:3\r\n", "HELLO", "3", "SETNAME", "first")
	w.do("+OK\r\n", "SELECT", "4")
	w.do("+OK\r\n", "CLIENT", "SETNAME", "second")
	w.do("+OK\r\n", "CLIENT", "SETINFO", "lib-name", "lib")
	w.do("+OK\r\n", "CLIENT", "SETINFO", "LIB-VER", "1.2")
	s := h.sessionOf(w)
	h.closeUnused(s)
	eventually(t, "the own connection is closed", func() bool { return !s.hasOwn() })
	w.do(bulk("info"), "INFO", "anew")
	var got []string
	for _, c := range b.connsWith(false, "INFO") {
		for _, args := range c.commands() {
			got = append(got, strings.Join(args, " "))
		}
	}
	want := []string{"AUTH secret", "HELLO 3", "SELECT 4", "CLIENT SETNAME second", "CLIENT SETINFO LIB-NAME lib", "CLIENT SETINFO LIB-VER 1.2", "PING", "INFO anew"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	h.pass(stayInterval)
	w.do(bulk("4 3"), "HGET", "h", "f")
	h.wantOnLanes("HGET", 1)
	w.do("+RESET\r\n", "RESET")
	w.do(bulk("info"), "INFO", "behind RESET")
	h.pass(stayInterval)
	w.do(bulk("0 2"), "HGET", "h", "f")
	h.wantOnLanes("HGET", 2)
	if n := len(h.Stats().SessionsClosed); n != 0 {
		t.Errorf("sessions closed: %v", h.Stats().SessionsClosed)
	}
}

// RESET drops the user that dragontls chose: nothing follows it on its connection.
func TestResetOfASharedSessionHasAFreshConnection(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	for i := range 3 {
		w.do("+RESET\r\n", "RESET")
		w.do(bulk("info"), "INFO", fmt.Sprint(i))
	}
	for _, c := range b.connsWith(false, "INFO") {
		all := c.commands()
		if all[0][0] != "AUTH" {
			t.Errorf("a connection without AUTH: %q", all)
		}
		if i := slices.IndexFunc(all, func(args []string) bool { return args[0] == "RESET" }); i >= 0 && i != len(all)-1 {
			t.Errorf("behind RESET on its connection: %q", all[i+1:])
		}
	}
}

func TestQuitWithoutAnOwnConnectionIsAnsweredHere(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	w := h.dial()
	held := b.hold("held")
	w.send(cmd("GET", "held") + cmd("QUIT") + cmd("GET", "x"))
	<-held.reached
	held.release()
	w.want(valueOf("held") + "+OK\r\n")
	w.wantCleanEnd()
	w.Close()
	h.wantClosed(closeQuit, 1)
	if b.count("QUIT", "") != 0 || b.count("GET", "x") != 0 || len(b.connsWith(false, "AUTH")) != 1 { // the prober's
		t.Error("the backend was asked")
	}
	w = h.dial()
	w.do(bulk("info"), "INFO")
	w.do("+OK\r\n", "QUIT")
	w.wantCleanEnd()
	if b.count("QUIT", "") != 1 {
		t.Error("QUIT of a session with its own connection is the backend's")
	}
}

// What is refused inside a transaction keeps it from a lane, and from being run.
func TestRefusalInsideATransactionKeepsItFromALane(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.DenyCommands = []string{"SHUTDOWN"} })
	const refused = "-NOPERM dragontls: the command SHUTDOWN is refused here (DENY_COMMANDS)\r\n"
	for name, pieces := range map[string][]string{
		"in one batch": {cmd("MULTI") + cmd("GET", "a") + cmd("SHUTDOWN") + cmd("GET", "b") + cmd("EXEC")},
		"in pieces":    {cmd("MULTI"), cmd("GET", "a"), cmd("SHUTDOWN"), cmd("GET", "b"), cmd("EXEC")},
	} {
		t.Run(name, func(t *testing.T) {
			w := h.dial()
			w.get("0")
			before := h.Stats().CommandsLane["MULTI"]
			for _, p := range pieces {
				w.send(p)
			}
			w.want("+OK\r\n+QUEUED\r\n" + refused + "+QUEUED\r\n" + string(textExecAbort))
			if got := h.Stats().CommandsLane["MULTI"]; got != before {
				t.Error("it rode a lane")
			}
			h.pass(stayInterval)
			before = h.Stats().CommandsLane["GET"]
			w.get("1")
			h.wantOnLanes("GET", int(before)+1)
		})
	}
	if b.count("EXEC", "") != len(b.connsWith(true, "EXEC")) {
		t.Error("a doomed transaction was run")
	}
}

func TestNoPlaceForAConnectionIsMadeByTheIdleOnes(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	j := &judgement{}
	h := b.start(func(c *Config) { c.Recheck, c.Backend.MaxConnections = j.recheck, 2 })
	a, c, d := h.dialAs("a"), h.dialAs("c"), h.dialAs("d")
	for range 2 {
		for i, w := range []*wire{a, c, d} { // each on a lane of its own
			w.get(fmt.Sprint(i))
			w.do(bulk("info"), "INFO")
			h.pass(stayInterval)
		}
	}
	h.wantOnLanes("GET", 6)
	if got := h.Stats().BackendErrors; len(got) != 0 || len(h.Stats().SessionsClosed) != 0 {
		t.Errorf("errors %v, sessions closed %v", got, h.Stats().SessionsClosed)
	}
}

func TestNoPlaceForAConnectionIsSaidWhereNoneIsIdle(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.Backend.MaxConnections, c.unavailableTimeout = 2, outage })
	a, c, d := settledAtLast(h), settledAtLast(h), settledAtLast(h)
	first := b.hold("first")
	a.goesOn(valueOf("its lane"), "GET", "its lane")
	a.send(cmd("GET", "first"))
	<-first.reached
	second := b.hold("second")
	c.send(cmd("INFO", "second"))
	<-second.reached
	d.send(cmd("INFO", "x"))
	d.want(sayUnavailable)
	eventually(t, "it is counted", func() bool { return h.Stats().BackendErrors["max_connections"] > 0 })
	if n := h.Stats().BackendConnections; n != 2 {
		t.Errorf("%d connections", n)
	}
	first.release()
	a.want(valueOf("first"))
	d.goesOn(bulk("info"), "INFO", "y")
	second.release()
	c.want(bulk("info"))
	if b.count("INFO", "x") != 0 {
		t.Error("what was said not to be sent was run")
	}
}

// 640 keys of lanes and 20 own connections take turns in 64 places.
func TestManyKeysShareFewConnections(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	j := &judgement{}
	h := b.start(func(c *Config) { c.Recheck = j.recheck; c.Backend.MaxConnections = 64 })
	const identities = 20
	var wg sync.WaitGroup
	for i := range identities {
		w := h.dialCert(testPKI().issue(pki.Leaf{CN: fmt.Sprint("client ", i), Client: true}))
		wg.Go(func() { cycle(t, h, w) })
	}
	wg.Wait()
	h.wantOnLanes("HGET", identities*16*2)
	if st := h.Stats(); st.BackendConnections > 64 || len(st.SessionsClosed) != 0 || st.BackendErrors["max_connections"] != 0 {
		t.Errorf("%d connections, closed %v, errors %v", st.BackendConnections, st.SessionsClosed, st.BackendErrors)
	}
}

func cycle(t *testing.T, h *harness, w *wire) {
	for proto := 3; proto > 1; proto-- {
		hello := map[int]string{3: "%1\r\n$5\r\nproto\r\n:3\r\n", 2: "*2\r\n$5\r\nproto\r\n:2\r\n"}[proto]
		for db := range 16 {
			for _, step := range []struct {
				reply string
				args  []string
			}{
				{hello, []string{"HELLO", fmt.Sprint(proto)}},
				{"+OK\r\n", []string{"SELECT", fmt.Sprint(db)}},
				{bulk(fmt.Sprint(db, " ", proto)), []string{"HGET", "h", "f"}},
			} {
				if step.args[0] == "HGET" {
					h.pass(stayInterval)
				}
				io.WriteString(w, cmd(step.args...))
				got := make([]byte, len(step.reply))
				if _, err := io.ReadFull(w.r, got); err != nil || string(got) != step.reply {
					t.Errorf("%q: got %q (%v), want %q", step.args, got, err, step.reply)
					return
				}
			}
		}
	}
}

func (h *harness) dialCert(cert tls.Certificate) *wire {
	h.t.Helper()
	config := testPKI().clientConfig()
	config.Certificates = []tls.Certificate{cert}
	c, err := tls.Dial("tcp", h.addr, config)
	if err != nil {
		h.t.Fatal(err)
	}
	return newWire(h.t, c)
}

// Clients that go, and idle connections that the backend closes, are no errors of the backend.
func TestOwnConnectionThatEndsInOrderIsNoError(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h := b.start(nil)
	for _, end := range []func(*wire){
		func(w *wire) { w.Close() },
		resetBy,
		func(w *wire) { w.send(cmd("QUIT")); w.wantEnd() },
		func(w *wire) {
			s := h.sessionOf(w)
			up, _ := s.upstreamNow()
			up.Socket.CloseWrite() // the backend closes
			eventually(t, "it is gone", func() bool { return !s.hasOwn() })
			w.Close()
		},
	} {
		w := h.dial()
		w.do(bulk("info"), "INFO")
		end(w)
		eventually(t, "no session", func() bool { return h.live() == 0 })
	}
	eventually(t, "no connection but the prober's", func() bool { return h.Stats().BackendConnections <= 1 })
	if e := h.Stats().BackendErrors; e["lost"] != 0 {
		t.Errorf("backend errors: %v", e)
	}
}

func sha(body string) string {
	sum := sha1.Sum([]byte(body))
	return hex.EncodeToString(sum[:])
}
