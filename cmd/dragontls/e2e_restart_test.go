package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dragontls/certs/pki"
)

// A successor that listens on the same address takes over: no client is refused, while the last process drains. E2E_RESTARTS
// says how often.
func TestSuccessorTakesOverWithoutARefusal(t *testing.T) {
	t.Parallel()
	restarts := 3
	if s := os.Getenv("E2E_RESTARTS"); s != "" {
		restarts, _ = strconv.Atoi(s)
	}
	r := redisServer(t)
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	vars := append(proxyVars(r.url()), "DRAIN_TIMEOUT=30s")
	p := servingIn(t, dir, vars...).wantReady()
	second := dragontls(t, dir, []string{"serve"}, append(vars, "LISTEN="+p.addr))
	second.wantExit(exitFailed) // by mistake, nobody shares the clients
	wantParts(t, second.stderr.String(), "address already in use", "DRAGONTLS_TAKE_OVER=true")
	vars = append(vars, "LISTEN="+p.addr, "TAKE_OVER=true")
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex
	served, faults := 0, map[string]int{}
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond): // four clients, 200 connections a second
				}
				err := comeAndGo(p)
				mu.Lock()
				if served++; err != nil {
					faults[err.Error()]++
				}
				mu.Unlock()
			}
		})
	}
	connected := func() int { mu.Lock(); defer mu.Unlock(); return served }
	last := p
	for range restarts {
		successor := servingIn(t, dir, vars...).wantReady()
		successor.wantLog("another process listens on this address: new clients go to either, until it is told to stop")
		before := connected()
		last.signal(syscall.SIGTERM)
		last.wantExit(exitOK)
		eventually(t, "clients connect", func() bool { return connected() > before+20 })
		last = successor
	}
	close(stop)
	clients.Wait()
	if len(faults) > 0 {
		t.Errorf("%d restarts, %d connections: %v", restarts, served, faults)
	}
	t.Logf("%d restarts, %d connections, none refused", restarts, served)
}

// comeAndGo makes one connection, has one answer, and leaves.
func comeAndGo(p *instance) error {
	c, err := tls.Dial("tcp", p.addr, p.clientTLS())
	if err != nil {
		return errors.New("refused: " + strings.ReplaceAll(err.Error(), p.addr, "ADDRESS"))
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return errors.New("write")
	}
	got := make([]byte, len("+PONG\r\n"))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != "+PONG\r\n" {
		return fmt.Errorf("reply %q, %v", got[:n], err)
	}
	return nil
}

func TestDrainEndsFewIdleSessionsAtOnce(t *testing.T) {
	inBothModes(t, func(t *testing.T, mode string) {
		r := redisServer(t)
		p := serving(t, r.url(), "BACKEND_MODE="+mode, "DRAIN_TIMEOUT=1h").wantReady()
		var idle []*tls.Conn
		for range 20 {
			c := session(t, p)
			wantAnswer(t, c, "PING", "+PONG\r\n")
			idle = append(idle, c)
		}
		subscribed := session(t, p)
		wantAnswer(t, subscribed, "SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
		p.signal(syscall.SIGTERM) // if they were spread over half of DRAIN_TIMEOUT, this would take half an hour
		for _, c := range append(idle, subscribed) {
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("a session ended with %v, want close_notify", err)
			}
		}
		p.wantExit(exitOK)
	})
}

// fileOf returns the socket of a listener for a child.
func fileOf(t *testing.T, address string) (*os.File, net.Addr) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, ln.Addr()
}

// activated starts serve as a service manager does that has opened its sockets.
func activated(t *testing.T, dir, names string, files []*os.File, vars []string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", path, "serve")
	cmd.Dir, cmd.Env = dir, append(environ(vars...), fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES="+names)
	cmd.ExtraFiles = files
	return launch(t, cmd)
}

func TestInheritedSocketsWin(t *testing.T) {
	t.Parallel()
	r := redisServer(t)
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	clients, address := fileOf(t, "127.0.0.1:0")
	adminFile, adminAddress := fileOf(t, "127.0.0.1:0")
	vars := append(proxyVars(r.url()), "LISTEN=127.0.0.1:1", "ADMIN_LISTEN=") // neither is used
	start := func() *instance {
		p := &instance{process: activated(t, dir, "dragontls.socket:admin", []*os.File{clients, adminFile}, vars), dir: dir}
		line := p.wantLog("listening")
		if line["address"] != address.String() || line["admin"] != adminAddress.String() {
			t.Fatalf("listening at %v and %v, want %v and %v", line["address"], line["admin"], address, adminAddress)
		}
		p.addr, p.admin = address.String(), adminAddress.String()
		return p.wantReady()
	}
	p := start()
	wantAnswer(t, session(t, p), "PING", "+PONG\r\n")
	p.signal(syscall.SIGTERM)
	p.wantExit(exitOK)
	// Nobody accepts now, and nobody is refused: the socket is the service manager's.
	waits, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	p = start()
	c := tls.Client(waits, p.clientTLS())
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	wantAnswer(t, c, "PING", "+PONG\r\n")
}

func TestInheritedSocketsThatCannotServe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	one, _ := fileOf(t, "127.0.0.1:0")
	two, _ := fileOf(t, "127.0.0.1:0")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for want, files := range map[string][]*os.File{"are for the same listener": {one, two}, "is no stream socket that listens": {null}} {
		p := activated(t, dir, strings.TrimSuffix(strings.Repeat("clients:", len(files)), ":"), files, proxyVars("redis://127.0.0.1:1"))
		p.wantExit(exitFailed)
		wantParts(t, p.stderr.String(), "LISTEN_FDS", want, "FileDescriptorName=admin")
	}
}

// A service manager is told when the proxy serves, reloads, stops, and that it lives.
func TestServiceManagerIsNotified(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(workDir, "notify")
	if err != nil {
		t.Fatal(err)
	}
	if err := pki.Init(pki.Options{Dir: filepath.Join(dir, "pki")}); err != nil {
		t.Fatal(err)
	}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	next := func(want string) string {
		t.Helper()
		manager.SetDeadline(time.Now().Add(patience))
		b := make([]byte, 4096)
		for {
			n, err := manager.Read(b)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if s := string(b[:n]); strings.HasPrefix(s, want) {
				return s
			}
		}
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve")
	cmd.Dir = dir
	cmd.Env = append(environ(proxyVars(redisServer(t).url())...), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=50000")
	p := launch(t, cmd)
	next("READY=1")
	next("WATCHDOG=1")
	next("WATCHDOG=1")
	p.signal(syscall.SIGHUP)
	if got := next("RELOADING=1"); !strings.Contains(got, "\nMONOTONIC_USEC=") {
		t.Errorf("got %q, want the time too", got)
	}
	next("READY=1")
	p.signal(syscall.SIGTERM)
	next("STOPPING=1")
	p.wantExit(exitOK) // although nobody reads the messages of the watchdog any more
}
