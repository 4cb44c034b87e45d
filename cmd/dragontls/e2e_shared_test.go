//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/proxy/admin/statuspage"
)

// sharing starts a proxy in BACKEND_MODE=shared. Where the backend wants a password, its sessions ride lanes from their
// first command on.
func sharing(t testing.TB, r *redis, vars ...string) *instance {
	t.Helper()
	vars = append([]string{"BACKEND_MODE=shared"}, vars...)
	if r.password != "" {
		vars = append(vars, "BACKEND_PASSWORD="+r.password)
	}
	return serving(t, r.url(), vars...).wantReady()
}

// envInt is a size that is small in CI and bigger by hand.
func envInt(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q is no number", name, text)
	}
	return n
}

func array(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// wantOwn waits until so many backend connections are some session's own.
func (p *instance) wantOwn(n float64) {
	p.t.Helper()
	eventually(p.t, fmt.Sprint(n, " own connections"), func() bool { return p.metrics().sum("backend_connections", "kind", "own") == n })
}

func (p *instance) statusOf() (s statuspage.Status) {
	p.t.Helper()
	_, body := p.get("/status.json")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

func TestMetricsTellLanesFromOwnConnections(t *testing.T) {
	t.Parallel()
	r := lockedRedis(t)
	for _, c := range []struct {
		mode            string
		lane, own       float64 // GETs that went so
		lanes, ownConns float64
	}{{"shared", 3, 0, 1, 1}, {"paired", 0, 3, 0, 1}} {
		t.Run(c.mode, func(t *testing.T) {
			p := serving(t, r.url(), "BACKEND_MODE="+c.mode, "BACKEND_PASSWORD="+backendPassword).wantReady()
			l := p.live(p.clientTLS())
			for range 3 {
				l.want(l.ask("GET", "nothing"), "$-1")
			}
			l.wantWrongPass(l.ask("AUTH", "x"))
			if got := l.ask("INFO", "server"); !strings.Contains(got, "redis_version") {
				t.Errorf("got %.40q", got)
			}
			m := p.metrics()
			// A command is counted before its reply is out: the first scrape after it must have it.
			for _, want := range []struct {
				command, path string
				n             float64
			}{{"GET", "lane", c.lane}, {"GET", "own", c.own}, {"INFO", "own", 1}, {"INFO", "lane", 0}, {"AUTH", "local", 1}} {
				if got := m.sum("commands_total", "command", want.command, "path", want.path); got != want.n {
					t.Errorf("%s: got %v of %s, want %v", want.path, got, want.command, want.n)
				}
			}
			lanes, own := m.sum("backend_connections", "kind", "lane"), m.sum("backend_connections", "kind", "own")
			if lanes != c.lanes || own != c.ownConns {
				t.Errorf("got %v lanes and %v own connections, want %v and %v", lanes, own, c.lanes, c.ownConns)
			}
			if b := p.statusOf().Backend; b.Connections != int(c.lanes+c.ownConns) || b.Lanes != int(c.lanes) {
				t.Errorf("status: got %+v", b)
			}
			p.wantEnd()
		})
	}
}

// A client that vanishes while BLPOP waits takes no element with it, also where it rode lanes before.
func TestNoElementIsPoppedForAClientThatVanished(t *testing.T) {
	t.Parallel()
	r := lockedRedis(t)
	p := sharing(t, r)
	endings := map[string]func(l *live){
		"closed":      func(l *live) { l.Close() },
		"half-closed": func(l *live) { l.CloseWrite(); l.NetConn().(*net.TCPConn).CloseWrite() },
		"reset":       func(l *live) { l.NetConn().(*net.TCPConn).SetLinger(0); l.NetConn().Close() },
	}
	commands := map[string]string{
		"alone":  array("BLPOP", "q", "0") + array("GET", "x"),
		"behind": array("GET", "x") + array("SET", "x", "1") + array("BLPOP", "q", "0") + array("GET", "x") + array("HGETALL", "h"),
	}
	for ending, vanish := range endings {
		for name, sent := range commands {
			for _, blocked := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s %s blocked %t", ending, name, blocked), func(t *testing.T) {
					l := p.live(p.clientTLS())
					l.t = t
					l.ask("GET", "x")
					if _, err := io.WriteString(l, sent); err != nil {
						t.Fatal(err)
					}
					if blocked {
						r.wantBlocked(t, 1)
					}
					vanish(l)
					eventually(t, "the session has ended", func() bool { return p.metrics().sum("connections", "state", "open") == 0 })
					p.wantOwn(0)
					r.wantBlocked(t, 0)
					r.observe("LPUSH", "q", "element")
					if got := r.observe("LRANGE", "q", "0", "-1"); got != "element" {
						t.Errorf("got %q, want the element", got)
					}
					r.observe("DEL", "q", "x")
				})
			}
		}
	}
	p.wantEnd()
}

// A redis-server that stands still costs waiting and no session.
func TestStoppedBackendCostsNoSession(t *testing.T) {
	t.Parallel() // most of its time it waits
	r := lockedRedis(t)
	p := sharing(t, r)
	c := riders(t, p, 20, false)
	c.more(t, 5)
	begun := time.Now()
	r.signal(syscall.SIGSTOP)
	p.wantNotReady("backend_") // the prober has waited for an answer for longer than a lane is trusted without one
	time.Sleep(time.Duration(envInt(t, "E2E_STOP", 0)) * time.Second)
	stop := time.Since(begun).Round(time.Millisecond)
	r.signal(syscall.SIGCONT)
	c.more(t, 20)
	c.end(t)
	if c.lost.Load()+c.unsent.Load() > 0 {
		t.Errorf("%d commands were lost, %d not sent", c.lost.Load(), c.unsent.Load())
	}
	t.Logf("stopped for %v: %s; the longest wait for a pipeline %v", stop, c, slices.Max(c.longest()))
	p.wantEnd()
}

// kill -9 of redis-server ends the sessions whose commands it loses, as over a direct connection. They come back and have their
// state again.
func TestKilledBackendIsFoundAgain(t *testing.T) {
	t.Parallel() // most of its time it waits
	r := redisOnTCP(t, "--requirepass", backendPassword)
	r.password = backendPassword
	p := sharing(t, r)
	c := riders(t, p, 24, true)
	var delays []time.Duration
	for range envInt(t, "E2E_KILLS", 2) {
		p.wantOwn(0) // their names and databases were told on connections of their own
		c.more(t, 5)
		bad := c.bad()
		r.kill()
		c.until(t, "every session notices", func() bool { return beyond(c.bad(), bad, 1) })
		r.start(t)
		begun := time.Now()
		c.more(t, 1)
		delays = append(delays, time.Since(begun).Round(time.Millisecond))
		c.wantState(t, r)
	}
	c.wantNames(t)
	c.more(t, 5)
	c.end(t)
	t.Logf("%d kills: %s; the last session worked again %v at most after the server's return", len(delays), c, slices.Max(delays))
	p.wantEnd()
}
