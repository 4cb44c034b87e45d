//go:build unix

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// benchmark runs redis-benchmark and wants no error.
func benchmark(t *testing.T, p *instance, args ...string) {
	t.Helper()
	need(t, "redis-benchmark")
	out, err := tool(t, "", "", "redis-benchmark", append(append(p.flags(), "-q"), args...)...)
	if err != nil || containsFold(out, "error") || containsFold(out, "err ") || !strings.Contains(out, "MSET (10 keys)") {
		t.Errorf("redis-benchmark %s: %v\n%s", strings.Join(args, " "), err, strings.ReplaceAll(out, "\r", "\n"))
	}
}

func containsFold(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}

// All tests of redis-benchmark run with ten connections. What more connections change is no matter of the command, and each
// test opens them anew: with 200 there are fewer tests.
func TestBenchmark(t *testing.T) {
	t.Parallel()
	p := serving(t, redisServer(t).url())
	for _, depth := range []string{"1", "16", "100"} {
		t.Run("clients 10 pipeline "+depth, func(t *testing.T) { benchmark(t, p, "-n", "1000", "-c", "10", "-P", depth) })
		t.Run("clients 100 pipeline "+depth, func(t *testing.T) {
			benchmark(t, p, "-n", "2000", "-c", "100", "-P", depth, "-t", "ping,get,mset")
		})
	}
	t.Run("RESP3", func(t *testing.T) { benchmark(t, p, "-n", "500", "-c", "10", "-3") })
	t.Run("threads", func(t *testing.T) { benchmark(t, p, "-n", "500", "-c", "10", "--threads", "2") })
	p.wantEnd()
}

func (p *instance) cli(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	return wantTool(t, stdin, "redis-cli", append(p.flags(), args...)...)
}

func TestRedisCLI(t *testing.T) {
	inBothModes(t, testRedisCLI)
}

func testRedisCLI(t *testing.T, mode string) {
	r := redisOnTCP(t)
	p := serving(t, r.url(), "BACKEND_MODE="+mode)
	equal := func(t *testing.T, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %.200q, want %.200q", got, want)
		}
	}
	t.Run("RESP2", func(t *testing.T) {
		equal(t, p.cli(t, "", "SET", "a", "1"), "OK\n")
		equal(t, p.cli(t, "", "GET", "a"), "1\n")
		equal(t, p.cli(t, "", "-n", "3", "GET", "a"), "\n")
		equal(t, p.cli(t, "", "--no-raw", "HSET", "h", "f", "v"), "(integer) 1\n")
	})
	t.Run("RESP3", func(t *testing.T) {
		equal(t, p.cli(t, "", "-3", "--no-raw", "HGETALL", "h"), "1# \"f\" => \"v\"\n")
	})
	t.Run("pipe", func(t *testing.T) {
		var b strings.Builder
		for i := range 20000 {
			k := fmt.Sprintf("pipe:%d", i)
			fmt.Fprintf(&b, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$5\r\nvalue\r\n", len(k), k)
		}
		if got := p.cli(t, b.String(), "--pipe"); !strings.Contains(got, "errors: 0, replies: 20000") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("big value", func(t *testing.T) {
		value := strings.Repeat("0123456789abcdef", 5<<20/16)
		equal(t, p.cli(t, value, "-x", "SET", "big"), "OK\n")
		equal(t, p.cli(t, "", "GET", "big"), value+"\n")
	})
	t.Run("start of an interactive session", func(t *testing.T) {
		direct := wantTool(t, "", "redis-cli", "-s", r.socket, "COMMAND", "DOCS", "GET")
		equal(t, p.cli(t, "", "COMMAND", "DOCS", "GET"), direct)
		all := p.cli(t, "COMMAND DOCS\nINFO SERVER\nPING\n")
		if !strings.Contains(all, "redis_version:") || !strings.HasSuffix(all, "PONG\n") {
			t.Errorf("got %.100q ... %d bytes", all, len(all))
		}
	})
	t.Run("errors", func(t *testing.T) {
		out, _ := tool(t, "", "", "redis-cli", append(p.flags(), "NOSUCH", "x")...)
		direct, _ := tool(t, "", "", "redis-cli", "-s", r.socket, "NOSUCH", "x")
		equal(t, out, direct)
		out, _ = tool(t, "", "", "redis-cli", append(p.flags(), "REPLICAOF", "no", "one")...)
		if !strings.HasPrefix(out, "NOPERM dragontls: ") {
			t.Errorf("got %q, want NOPERM", out)
		}
	})
	t.Run("SUBSCRIBE", func(t *testing.T) { testSubscribe(t, p) })
	t.Run("MONITOR", func(t *testing.T) { testMonitor(t, p) })
	p.wantEnd()
}

func testSubscribe(t *testing.T, p *instance) {
	for _, protocol := range []string{"-2", "-3"} {
		s := launch(t, exec.Command("redis-cli", append(p.flags(), protocol, "SUBSCRIBE", "news")...))
		eventually(t, "subscribed", func() bool { return strings.Contains(s.stdout.String(), "subscribe") })
		eventually(t, "the message", func() bool {
			p.cli(t, "", "PUBLISH", "news", "flash")
			return strings.Contains(s.stdout.String(), "flash")
		})
		s.cmd.Process.Kill()
		<-s.ended
	}
}

func testMonitor(t *testing.T, p *instance) {
	s := launch(t, exec.Command("redis-cli", append(p.flags(), "MONITOR")...))
	eventually(t, "MONITOR's OK", func() bool { return strings.Contains(s.stdout.String(), "OK") })
	eventually(t, "a command of somebody else", func() bool {
		p.cli(t, "", "GET", "watched")
		return strings.Contains(s.stdout.String(), `"GET" "watched"`)
	})
}

const nodeDir = "testdata/node"

// ioredis runs one scenario of testdata/node/client.js.
func ioredis(t *testing.T, p *instance, scenario, protocol string, vars ...string) string {
	t.Helper()
	need(t, "node")
	if found, _ := filepath.Glob(nodeDir + "/node_modules/ioredis"); len(found) == 0 {
		missing(t, "ioredis is not installed: run npm ci in cmd/dragontls/"+nodeDir)
	}
	cmd := exec.Command("node", "client.js", scenario)
	cmd.Dir = nodeDir
	cmd.Env = append(environ(), append(vars, "PORT="+p.port(), "PROTOCOL="+protocol,
		"CA="+p.file("ca.crt"), "CERT="+p.file("client.crt"), "KEY="+p.file("client.key"))...)
	c := launch(t, cmd)
	var err error
	select {
	case <-c.ended:
	case <-time.After(patience):
		err = errors.New("it hangs")
	}
	if out := c.stdout.String(); err != nil || !strings.HasSuffix(out, scenario+" ok\n") {
		t.Errorf("ioredis %s, RESP%s: %v\n%s%s", scenario, protocol, err, out, &c.stderr)
	}
	return c.stdout.String()
}

func TestIoredis(t *testing.T) {
	inBothModes(t, testIoredis)
}

func testIoredis(t *testing.T, mode string) {
	p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode)
	for _, protocol := range []string{"3", "2"} {
		for _, scenario := range []string{"ready", "pipeline", "multi", "pubsub", "blpop", "scripts", "big", "reconnects"} {
			t.Run("RESP"+protocol+" "+scenario, func(t *testing.T) { ioredis(t, p, scenario, protocol) })
		}
	}
	t.Run("TLS 1.2", func(t *testing.T) { ioredis(t, p, "pipeline", "3", "TLS=TLSv1.2") })
	p.wantEnd()
}
