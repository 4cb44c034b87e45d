//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// developing starts `dragontls dev` in an empty directory and returns it with the line it prints to try.
func developing(t *testing.T, args []string, vars ...string) (p *instance, try string) {
	t.Helper()
	dir := t.TempDir()
	p = &instance{process: dragontls(t, dir, append([]string{"dev"}, args...), vars), dir: dir}
	eventually(t, "a line to try", func() bool {
		if !p.running() {
			t.Fatalf("ended:\n%s", &p.stderr)
		}
		try = p.printed()
		return try != ""
	})
	return p, try
}

// printed returns the command that dev prints to try, once it does, and notes the address that it prints.
func (p *instance) printed() (try string) {
	for line := range strings.Lines(p.stdout.String()) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on "); ok {
			p.addr, _, _ = strings.Cut(rest, " ")
		}
		if strings.HasPrefix(strings.TrimSpace(line), "redis-cli ") {
			try = strings.TrimSpace(line)
		}
	}
	return try
}

var freeAddresses = []string{"LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:0", "DRAIN_TIMEOUT=1s"}

// wantTry runs exactly what was printed, through a shell, as a person would.
func wantTry(t *testing.T, dir, line string) {
	t.Helper()
	need(t, "redis-cli")
	for _, c := range []struct{ command, want string }{{"PING", "PONG"}, {"SET greeting hello", "OK"}, {"GET greeting", "hello"}} {
		got, err := tool(t, dir, "", "sh", "-c", line+" "+c.command)
		if strings.TrimSpace(got) != c.want || err != nil {
			t.Errorf("%s: got %q (%v), want %q", c.command, got, err, c.want)
		}
	}
	// As typed after the prompt, with what redis-cli asks first.
	if got, err := tool(t, dir, "PING\nGET greeting\n", "sh", "-c", line); got != "PONG\nhello\n" || err != nil {
		t.Errorf("got %q (%v), want PONG and hello", got, err)
	}
}

func TestDevOnAFreshMachine(t *testing.T) {
	t.Parallel()
	p, try := developing(t, nil, freeAddresses...)
	wantTry(t, p.dir, try)
	p.wantEnd()
}

// TestDevWithDefaults wants the default addresses, which are those of the whole machine: where another program has one, dev
// has to say so, and that shows the default as well.
func TestDevWithDefaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := &instance{process: dragontls(t, dir, []string{"dev"}, nil), dir: dir}
	var try string
	eventually(t, "it listens, or says why not", func() bool {
		try = p.printed()
		return try != "" || !p.running()
	})
	if !p.running() {
		p.wantExit(exitFailed)
		if log := p.stderr.String(); !strings.Contains(log, "in use") || !strings.Contains(log, "127.0.0.1:6380") && !strings.Contains(log, "127.0.0.1:9380") {
			t.Errorf("got\n%s", log)
		}
		return
	}
	if p.addr != "127.0.0.1:6380" || !strings.Contains(try, " -p 6380 ") {
		t.Errorf("got %s and %q, want 127.0.0.1:6380", p.addr, try)
	}
	wantTry(t, p.dir, try)
	p.wantEnd()
}

func TestDevKeepsThePKIOfTheLastRun(t *testing.T) {
	t.Parallel()
	p, try := developing(t, nil, freeAddresses...)
	p.wantEnd()
	before := read(t, p.file("server.crt"))
	again := &instance{process: dragontls(t, p.dir, []string{"dev"}, freeAddresses), dir: p.dir}
	eventually(t, "a line to try", func() bool { return strings.Contains(again.stdout.String(), "redis-cli ") })
	if read(t, p.file("server.crt")) != before {
		t.Error("the certificate changed")
	}
	if try == "" {
		t.Error("no line to try")
	}
	again.wantEnd()
}

func TestDevWithADirectoryThatNeedsQuotes(t *testing.T) {
	t.Parallel()
	p, try := developing(t, []string{"--dir", "it's my pki"}, freeAddresses...)
	wantTry(t, p.dir, try)
	p.wantEnd()
}

func TestDevBeforeABackendThatIsNamed(t *testing.T) {
	t.Parallel()
	r := redisServer(t)
	p, try := developing(t, []string{"--backend", r.url()}, freeAddresses...)
	wantTry(t, p.dir, try)
	need(t, "redis-cli")
	if got := wantTool(t, "", "redis-cli", "-s", r.socket, "GET", "greeting"); got != "hello\n" {
		t.Errorf("got %q, want hello: the backend that was named has the key", got)
	}
	p.wantEnd()
}

func TestDevBenchmark(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	for _, depth := range []string{"1", "16"} {
		benchmark(t, p, "-n", "300", "-c", "10", "-P", depth)
	}
	p.wantEnd()
}

func TestDevIoredis(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	ioredis(t, p, "ready", "3")
	ioredis(t, p, "ready", "2")
	p.wantEnd()
}

func TestDevGoRedis(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	for _, protocol := range []int{2, 3} {
		c := goRedis(t, p, protocol, nil)
		want(t, "PONG")(c.Ping(t.Context()).Result())
		want(t, "OK")(c.Set(t.Context(), "key", "value", 0).Result())
		want(t, "value")(c.Get(t.Context(), "key").Result())
	}
	p.wantEnd()
}

func TestDevInlinePing(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	if got := inlinePing(t, p); !strings.Contains(got, "+PONG\r\n") {
		t.Errorf("got %q, want +PONG", got)
	}
	p.wantEnd()
}

// inlinePing is what people type to see whether somebody is there.
func inlinePing(t *testing.T, p *instance) string {
	t.Helper()
	need(t, "openssl")
	cmd := exec.Command("openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", p.addr, "-CAfile", p.file("ca.crt"),
		"-cert", p.file("client.crt"), "-key", p.file("client.key"))
	cmd.Env = environ()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := launch(t, cmd)
	if _, err := in.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer", func() bool { return strings.Contains(s.stdout.String(), "\r\n") || !s.running() })
	in.Close()
	return s.stdout.String()
}

func TestDevDrainsOnInterrupt(t *testing.T) {
	t.Parallel()
	p, _ := developing(t, nil, freeAddresses...)
	p.signal(syscall.SIGINT)
	p.wantExit(exitOK)
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
