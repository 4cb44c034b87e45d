package proxy

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mortalRedis is a redis-server that a test restarts. Nothing of what it held outlives that.
type mortalRedis struct {
	t      testing.TB
	socket string
	server *exec.Cmd
}

func newMortalRedis(t testing.TB) *mortalRedis {
	t.Helper()
	// A Unix socket's path holds 108 bytes at most, and that of t.TempDir has the name of the test in it.
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &mortalRedis{t: t, socket: filepath.Join(dir, "s")}
	r.start()
	t.Cleanup(func() {
		r.server.Process.Kill()
		r.server.Wait()
	})
	return r
}

func (r *mortalRedis) start() {
	r.t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		r.t.Skip("redis-server is not installed")
	}
	r.server = exec.Command(path, "--port", "0", "--save", "", "--dir", filepath.Dir(r.socket), "--unixsocket", r.socket)
	if err := r.server.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "redis-server accepts", func() bool {
		conn, err := net.Dial("unix", r.socket)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

func (r *mortalRedis) kill() {
	r.server.Process.Kill()
	r.server.Wait()
}

func (r *mortalRedis) restart() {
	r.t.Helper()
	r.kill()
	r.start()
}

// script returns 1, and its SHA-1 is scriptSum.
const script = "return 1"

var scriptSum = sha(script)

const library = "#!lua name=mine\nredis.register_function('one', function() return 1 end)"

// belief is something that a client may believe after a reply, and what makes it true again after a restart of the backend.
// config/docs/sharing.md has the same table.
type belief struct {
	before string   // commands
	reply  string   // to them all; empty: whatever it is
	then   []string // this command is answered by again; nil: the session ends
	again  string
	check  func(r *mortalRedis)
}

var beliefs = map[string]belief{
	"nothing": {before: cmd("GET", "k"), reply: "$-1\r\n", then: []string{"GET", "k"}, again: "$-1\r\n"},

	"a script, by EVAL":                 {before: cmd("EVAL", script, "0"), reply: ":1\r\n"},
	"a script, by EVAL_RO":              {before: cmd("EVAL_RO", script, "0"), reply: ":1\r\n"},
	"a script, by SCRIPT LOAD":          {before: cmd("SCRIPT", "LOAD", script), reply: bulk(scriptSum)},
	"a script, by EVALSHA":              {before: cmd("SCRIPT", "LOAD", script) + cmd("EVALSHA", scriptSum, "0"), reply: bulk(scriptSum) + ":1\r\n"},
	"a script, by EVALSHA_RO":           {before: cmd("SCRIPT", "LOAD", script) + cmd("EVALSHA_RO", scriptSum, "0"), reply: bulk(scriptSum) + ":1\r\n"},
	"a script, by SCRIPT EXISTS":        {before: cmd("SCRIPT", "EXISTS", scriptSum), reply: "*1\r\n:0\r\n"},
	"a script, in a transaction":        {before: cmd("MULTI") + cmd("EVAL", script, "0") + cmd("EXEC"), reply: "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"},
	"a script that changes the state":   {before: cmd("EVAL", "redis.call('SELECT', 0) return 1", "0"), reply: ":1\r\n"},
	"a script, and a read on a lane":    {before: cmd("EVAL", script, "0") + cmd("GET", "k"), reply: ":1\r\n$-1\r\n"},
	"a long script":                     {before: cmd("EVAL", script+strings.Repeat(" ", maxHeld), "0"), reply: ":1\r\n"},
	"a function, by FUNCTION LOAD":      {before: cmd("FUNCTION", "LOAD", library), reply: bulk("mine")},
	"a function, by FUNCTION LIST":      {before: cmd("FUNCTION", "LIST"), reply: "*0\r\n"},
	"a function, by FCALL":              {before: cmd("FUNCTION", "LOAD", library) + cmd("FCALL", "one", "0"), reply: bulk("mine") + ":1\r\n"},
	"the database":                      {before: cmd("SELECT", "3"), reply: "+OK\r\n", then: []string{"SET", "where", "here"}, again: "+OK\r\n", check: holdsIn3},
	"the protocol":                      {before: cmd("HELLO", "3"), then: []string{"HGETALL", "no"}, again: "%0\r\n"},
	"the name":                          {before: cmd("CLIENT", "SETNAME", "me"), reply: "+OK\r\n", then: []string{"CLIENT", "GETNAME"}, again: bulk("me")},
	"watched keys":                      {before: cmd("WATCH", "k"), reply: "+OK\r\n"},
	"an open transaction":               {before: cmd("MULTI"), reply: "+OK\r\n"},
	"tracking":                          {before: cmd("HELLO", "3") + cmd("CLIENT", "TRACKING", "ON")},
	"a subscription":                    {before: cmd("SUBSCRIBE", "c"), reply: "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"},
	"MONITOR":                           {before: cmd("MONITOR"), reply: "+OK\r\n"},
	"CLIENT REPLY":                      {before: cmd("CLIENT", "REPLY", "ON"), reply: "+OK\r\n"},
	"its user":                          {before: cmd("ACL", "SETUSER", "web", "on", ">pw", "+@all", "~*") + cmd("AUTH", "web", "pw"), reply: "+OK\r\n+OK\r\n"},
	"its id":                            {before: cmd("CLIENT", "ID")},
	"that it is not evicted for memory": {before: cmd("CLIENT", "NO-EVICT", "ON"), reply: "+OK\r\n"},
}

func holdsIn3(r *mortalRedis) {
	direct := dialPlain(r.t, r.socket)
	direct.do("+OK\r\n", "SELECT", "3")
	direct.do(bulk("here"), "GET", "where")
}

// What a client believes is made true again after a restart of the backend, or its session ends, whether or not the session
// has a connection at that moment. In mode paired every session ends, as over a direct connection.
func TestWhatAClientBelievesHoldsOrItsSessionEnds(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for name, tt := range beliefs {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				tt.test(t, m, false)
			})
			if m.shared {
				t.Run(name+", and its own connection was given back", func(t *testing.T) {
					t.Parallel()
					tt.test(t, m, true)
				})
			}
		}
	})
}

func (b belief) test(t *testing.T, m mode, givenBack bool) {
	r := newMortalRedis(t)
	h := m.start(t, r.socket, nil)
	w := h.dial()
	w.do("+PONG\r\n", "PING")
	if b.reply != "" {
		w.send(b.before)
		w.want(b.reply)
	} else {
		w.send(b.before + cmd("ECHO", "believes"))
		for w.line() != "believes\r\n" {
		}
	}
	if s := h.sessionOf(w); givenBack && !s.keepsOwn() && !s.sticky() && !s.uncounting() {
		h.closeUnused(s)
	}
	r.restart()
	if b.then != nil && m.shared {
		w.goesOn(b.again, b.then...)
		if b.check != nil {
			b.check(r)
		}
		return
	}
	// In one write, as a library sends a transaction: no half of it may run.
	_, _ = io.WriteString(w, cmd("MULTI")+cmd("SET", "paid", "1")+cmd("EVALSHA", scriptSum, "0")+cmd("EXEC"))
	if got := w.wantEnd(); got != "" {
		t.Errorf("got %q", got)
	}
	dialPlain(t, r.socket).do("$-1\r\n", "GET", "paid")
}
