//go:build unix

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dragontls/config"
)

// rig is a proxy whose settings stand in a file, and change with it.
type rig struct {
	*instance
	redis *redis
	path  string
	reads float64
}

// configured starts a proxy with a file of these settings, NAME=VALUE without the prefix.
func configured(t *testing.T, r *redis, backend string, settings ...string) *rig {
	t.Helper()
	c := &rig{redis: r, path: filepath.Join(t.TempDir(), "dragontls.env")}
	c.write(t, settings)
	vars := slices.DeleteFunc(proxyVars(backend), func(v string) bool {
		return strings.HasPrefix(v, "LOG_LEVEL=") || strings.HasPrefix(v, "DRAIN_TIMEOUT=")
	})
	dir := ownPKI(t, newCA(t, "settings"))
	c.instance = &instance{process: dragontls(t, dir, []string{"serve", "--env-file", c.path}, vars), dir: dir}
	line := c.wantLog("listening")
	c.addr, _ = line["address"].(string)
	c.admin, _ = line["admin"].(string)
	return c
}

func (c *rig) write(t testing.TB, settings []string) {
	t.Helper()
	text := ""
	for _, s := range settings {
		text += config.Prefix + s + "\n"
	}
	write(t, c.path, []byte(text))
}

// change replaces the settings of the file, and waits until they have been read.
func (c *rig) change(settings ...string) {
	c.t.Helper()
	c.write(c.t, settings)
	c.signal(syscall.SIGHUP)
	c.reads++
	c.wantMetric(c.reads, "reload_total", "of", "settings")
}

func (c *rig) end() {
	c.t.Helper()
	c.wantEnd()
}

// pong opens a session and wants it to be served.
func (c *rig) pong() *tls.Conn {
	c.t.Helper()
	s := session(c.t, c.instance)
	wantAnswer(c.t, s, "PING", "+PONG\r\n")
	return s
}

// wantRefusal opens a session and wants it to be refused for a limit.
func (c *rig) wantRefusal(limit string) {
	c.t.Helper()
	late := session(c.t, c.instance)
	io.WriteString(late, "PING\r\n")
	if got, _ := io.ReadAll(late); !strings.Contains(string(got), "("+limit+")") {
		c.t.Errorf("got %q, want an error that names %s", got, limit)
	}
}

// silent opens a socket that sends nothing.
func (c *rig) silent() net.Conn {
	c.t.Helper()
	s, err := net.Dial("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { s.Close() })
	s.SetDeadline(time.Now().Add(patience))
	return s
}

// hoard asks for 64 replies of 256 KB over one session and reads none.
func (c *rig) hoard() *tls.Conn {
	c.t.Helper()
	c.redis.observe("SETRANGE", "big", fmt.Sprint(256<<10-1), "x")
	s := c.pong()
	if _, err := io.WriteString(s, strings.Repeat(array("GET", "big"), 64)); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// changesLive proves for each live variable that SIGHUP makes its change take effect.
var changesLive = map[string]func(t *testing.T, r *redis){
	"MAX_CONNECTIONS": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "MAX_CONNECTIONS=2")
		a, b := c.pong(), c.pong()
		c.wantRefusal("MAX_CONNECTIONS")
		c.change("MAX_CONNECTIONS=3")
		d := c.pong()
		c.change("MAX_CONNECTIONS=1")
		for _, s := range []*tls.Conn{a, b, d} { // nobody is closed
			wantAnswer(t, s, "PING", "+PONG\r\n")
		}
		c.wantRefusal("MAX_CONNECTIONS")
		c.end()
	},
	"MAX_CONNECTIONS_PER_IDENTITY": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url())
		a, b := c.pong(), c.pong()
		c.change("MAX_CONNECTIONS_PER_IDENTITY=2")
		c.wantRefusal("MAX_CONNECTIONS_PER_IDENTITY") // those from before count
		c.change("MAX_CONNECTIONS_PER_IDENTITY=3")
		d := c.pong()
		c.change("MAX_CONNECTIONS_PER_IDENTITY=1")
		for _, s := range []*tls.Conn{a, b, d} {
			wantAnswer(t, s, "PING", "+PONG\r\n")
		}
		c.end()
	},
	"MAX_HANDSHAKES": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "MAX_HANDSHAKES=1", "HANDSHAKE_TIMEOUT=24h")
		c.silent()
		c.wantMetric(1, "connections", "state", "handshaking")
		c.change("MAX_HANDSHAKES=2", "HANDSHAKE_TIMEOUT=24h")
		c.silent()
		c.wantMetric(2, "connections", "state", "handshaking")
		c.wantMetric(2, "limit", "of", "max_handshakes")
		c.end()
	},
	"HANDSHAKE_TIMEOUT": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "HANDSHAKE_TIMEOUT=24h")
		c.change("HANDSHAKE_TIMEOUT=1ms")
		if _, err := c.silent().Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("got %v, want the end of the connection", err)
		}
		c.end()
	},
	"IDLE_TIMEOUT": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url())
		a := c.pong()
		c.change("IDLE_TIMEOUT=1ms")
		if _, err := a.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want the end of the session", err)
		}
		c.wantAtLeast(1, "sessions_closed_total", "reason", "idle_timeout")
		c.end()
	},
	"WRITE_TIMEOUT": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "WRITE_TIMEOUT=24h", "BACKEND_MODE=paired")
		c.change("WRITE_TIMEOUT=1ms", "BACKEND_MODE=paired")
		c.hoard()
		c.wantAtLeast(1, "sessions_closed_total", "reason", "slow_client")
		c.end()
	},
	"DRAIN_DELAY": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "DRAIN_DELAY=24h", "DRAIN_TIMEOUT=1s")
		c.change("DRAIN_DELAY=1ms", "DRAIN_TIMEOUT=1s")
		c.end()
	},
	"DRAIN_TIMEOUT": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "DRAIN_TIMEOUT=24h")
		io.WriteString(c.pong(), "BLPOP none 0\r\n")
		r.wantBlocked(t, 1)
		c.change("DRAIN_TIMEOUT=1s")
		c.end()
	},
	"CLIENT_PASSWORD": func(t *testing.T, _ *redis) {
		r := lockedRedis(t)
		c := configured(t, r, r.url(), "BACKEND_PASSWORD="+backendPassword)
		a := c.pong()
		wantAnswer(t, a, "AUTH "+backendPassword, "+OK\r\n")
		c.change("BACKEND_PASSWORD="+backendPassword, "CLIENT_PASSWORD=refuse")
		wantAnswer(t, a, "AUTH "+backendPassword, "-NOPERM ")
		c.end()
	},
	"BACKEND_CONNECT_TIMEOUT": func(t *testing.T, r *redis) {
		deaf, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and answers nothing
		if err != nil {
			t.Fatal(err)
		}
		defer deaf.Close()
		c := configured(t, r, "redis://"+deaf.Addr().String(), "BACKEND_CONNECT_TIMEOUT=1h", "BACKEND_MODE=paired", "BACKEND_PASSWORD=x")
		c.change("BACKEND_CONNECT_TIMEOUT=1ms", "BACKEND_MODE=paired", "BACKEND_PASSWORD=x")
		session(t, c.instance)
		c.wantAtLeast(1, "backend_errors_total") // timeout, or silent where the connection was there in time
		c.end()
	},
	"BACKEND_MAX_CONNECTIONS": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "BACKEND_MAX_CONNECTIONS=1", "BACKEND_MODE=paired")
		a := c.pong()
		b := session(t, c.instance)
		io.WriteString(b, "PING\r\n")
		if got, _ := io.ReadAll(b); !strings.HasPrefix(string(got), "-LOADING ") {
			t.Errorf("got %q while all places are taken", got)
		}
		c.change("BACKEND_MAX_CONNECTIONS=2", "BACKEND_MODE=paired")
		b = c.pong()
		c.change("BACKEND_MAX_CONNECTIONS=1", "BACKEND_MODE=paired")
		wantAnswer(t, a, "PING", "+PONG\r\n")
		wantAnswer(t, b, "PING", "+PONG\r\n")
		c.end()
	},
	"DENY_COMMANDS": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url())
		a := c.pong()
		wantAnswer(t, a, "GET none", "$-1\r\n")
		wantAnswer(t, a, "SHUTDOWN", "-NOPERM ")
		io.ReadAtLeast(a, make([]byte, 512), 2)
		c.change("DENY_COMMANDS=+GET,+NOSUCHCOMMAND,-SHUTDOWN,+CONFIG|GET")
		wantAnswer(t, a, "GET none", "-NOPERM dragontls: the command GET is refused")
		io.ReadAtLeast(a, make([]byte, 512), 2)
		wantAnswer(t, a, "NOSUCHCOMMAND", "-NOPERM ")
		io.ReadAtLeast(a, make([]byte, 512), 2)
		wantAnswer(t, a, "SHUTDOWN nonsense", "-ERR syntax error\r\n") // by the backend
		if line := c.wantLog("deployment finding"); line == nil {
			t.Error("an unknown name is not told")
		}
		c.change()
		wantAnswer(t, a, "GET none", "$-1\r\n")
		c.end()
	},
	"MAX_BULK": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url())
		a := c.pong()
		wantAnswer(t, a, strings.TrimSuffix(array("ECHO", "0123456789"), "\r\n"), "$10\r\n0123456789\r\n")
		c.change("MAX_BULK=9")
		wantAnswer(t, a, strings.TrimSuffix(array("ECHO", "0123456789"), "\r\n"), "-ERR Protocol error")
		c.end()
	},
	"MAX_ARGS": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url())
		a := c.pong()
		wantAnswer(t, a, "EXISTS a b c", ":0\r\n")
		c.change("MAX_ARGS=3")
		wantAnswer(t, a, "EXISTS a b c", "-ERR Protocol error")
		c.end()
	},
	"SESSION_BUFFER": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "SESSION_BUFFER=1gib")
		// A session leaves its lane once more than its budget is unsent.
		leaves := func() float64 {
			s := c.hoard()
			c.wantMetricThat("more than the budget", func(n float64) bool { return n > 128<<10 }, "buffer_bytes")
			replies := int64(64 * (256<<10 + len("$262144\r\n\r\n")))
			if n, err := io.Copy(io.Discard, io.LimitReader(s, replies)); n != replies || err != nil {
				t.Fatalf("got %d bytes (%v)", n, err)
			}
			wantAnswer(t, s, "GET none", "$-1\r\n")
			return c.metrics().sum("backend_connections", "kind", "own")
		}
		if n := leaves(); n != 0 {
			t.Fatalf("%v own connections", n)
		}
		c.change("SESSION_BUFFER=64kb")
		if n := leaves(); n != 1 {
			t.Errorf("%v own connections, want 1: the budget is as it was", n)
		}
		c.end()
	},
	"MEMORY_LIMIT": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "SESSION_BUFFER=1gib", "MEMORY_LIMIT=1gib", "MAX_CONNECTIONS=10")
		c.hoard()
		c.wantMetricThat("megabytes", func(n float64) bool { return n > 6<<20 }, "buffer_bytes")
		c.change("SESSION_BUFFER=1gib", "MEMORY_LIMIT=32mb", "MAX_CONNECTIONS=10")
		c.wantMetricThat("a session or lane closed", func(n float64) bool { return n >= 1 }, "limit_reached_total", "of", "memory_limit_per_identity")
		c.wantMetric(20<<20, "limit", "of", "memory_limit")
		c.end()
	},
	"AUDIT_LOG": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "AUDIT_LOG=off")
		a := c.pong()
		c.change("AUDIT_LOG=commands")
		wantAnswer(t, a, "PING", "+PONG\r\n")
		if line := c.wantLog("command"); line["command"] != "PING" {
			t.Errorf("got %v", line)
		}
		if n := len(c.logged("session accepted")); n != 0 {
			t.Errorf("%d lines of the audit log while it was off", n)
		}
		c.change("AUDIT_LOG=connections")
		wantAnswer(t, a, "PING", "+PONG\r\n")
		c.pong()
		c.wantLog("session accepted") // the log is in order
		if n := len(c.logged("command")); n != 1 {
			t.Errorf("%d commands in the audit log, want the one of the time when it held them", n)
		}
		c.end()
	},
	"LOG_LEVEL": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "LOG_LEVEL=info")
		c.pong()
		c.change("LOG_LEVEL=debug")
		if n := len(c.logged("session started")); n != 0 {
			t.Errorf("%d lines of a lower level", n)
		}
		c.pong()
		c.wantLog("session started")
		c.change("LOG_LEVEL=error")
		before := len(c.logged("reload"))
		c.change("LOG_LEVEL=info")
		c.change("LOG_LEVEL=info", "AUDIT_LOG=off")
		eventually(t, "lines from info on again", func() bool { return len(c.logged("reload")) >= before+2 })
		if n := len(c.logged("reload")); n != before+2 {
			t.Errorf("%d lines of reloads after the level had changed, want 2", n-before)
		}
		c.end()
	},
	"EXPIRY_WARNING": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url(), "EXPIRY_WARNING=1s")
		c.change("EXPIRY_WARNING=87600h")
		// The certificates of the PKI are young: what is told is at most a third of their validity before the end.
		ca := newCA(t, "ending")
		leaf := serverLeaf()
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-50*time.Minute), time.Now().Add(10*time.Minute)
		ending := issueLeaf(t, ca, leaf)
		rename(t, c.file("server.crt"), ending.cert)
		rename(t, c.file("server.key"), ending.key)
		c.signal(syscall.SIGHUP)
		if line := c.wantLog("validity ends soon"); line["serial"] != ending.serial {
			t.Errorf("got %v", line)
		}
		c.end()
	},
	"ALERT_WEBHOOK_URL": func(t *testing.T, r *redis) {
		c := configured(t, r, r.url())
		told := &receiver{}
		hook := httptest.NewServer(told)
		defer hook.Close()
		c.change("ALERT_WEBHOOK_URL=" + hook.URL)
		rename(t, c.file("server.key"), []byte("nonsense"))
		eventually(t, "the webhook hears", func() bool { return len(told.with("FAILED", "server.key")) > 0 })
		other := &receiver{}
		second := httptest.NewServer(other)
		defer second.Close()
		url := filepath.Join(t.TempDir(), "url")
		write(t, url, []byte(second.URL))
		c.change("ALERT_WEBHOOK_URL_FILE=" + url)
		rename(t, c.file("server.key"), []byte("other nonsense"))
		eventually(t, "the other webhook hears", func() bool { return len(other.with("FAILED", "server.key")) > 0 })
		c.end()
	},
}

func TestEveryLiveVariableChangesWithoutARestart(t *testing.T) {
	t.Parallel()
	var live []string
	for _, v := range config.Variables() {
		if v.Live {
			live = append(live, v.Name)
		}
	}
	slices.Sort(live)
	if proven := slices.Sorted(maps.Keys(changesLive)); !slices.Equal(proven, live) {
		t.Fatalf("proven are %v, live are %v", proven, live)
	}
	for name, prove := range changesLive {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prove(t, redisServer(t))
		})
	}
}
