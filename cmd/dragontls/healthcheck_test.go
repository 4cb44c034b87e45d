package main

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"dragontls/config"
	"dragontls/proxy/admin"
)

func TestHealthcheckAsksReadyz(t *testing.T) {
	var mu sync.Mutex
	ready := admin.Readiness{OK: true}
	server, err := admin.Listen(admin.Options{Listen: ":0", Log: zerolog.Nop(), Ready: func() admin.Readiness {
		mu.Lock()
		defer mu.Unlock()
		return ready
	}})
	if err != nil {
		t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(func() { server.Serve() })
	defer answering.Wait()
	defer server.Close(context.Background())
	_, port, _ := net.SplitHostPort(server.Addr().String())

	// A proxy in the environment, or a fault elsewhere in it, is not its affair.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	for _, host := range []string{"", "0.0.0.0", "127.0.0.1", "localhost"} {
		got := invoke([]string{"DRAGONTLS_ADMIN_LISTEN=" + host + ":" + port, "DRAGONTLS_LISTEN=nonsense"}, "healthcheck")
		if got != (outcome{exitOK, "ready\n", ""}) {
			t.Errorf("%q: got %+v", host, got)
		}
	}
	mu.Lock()
	ready = admin.Readiness{Reason: "draining"}
	mu.Unlock()
	if got := invoke([]string{"DRAGONTLS_ADMIN_LISTEN=:" + port}, "healthcheck"); got != (outcome{exitFailed, "", "not ready\ndraining\n"}) {
		t.Errorf("got %+v", got)
	}
}

func TestHealthcheckFailsWithoutAnAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := l.Addr().String() // accepts in the kernel, never answers
	defer l.Close()
	for listen, want := range map[string]string{"": "disabled", "nonsense": "want host:port", silent: "deadline exceeded"} {
		start := time.Now()
		got := invoke([]string{"DRAGONTLS_ADMIN_LISTEN=" + listen}, "healthcheck")
		if got.code != exitFailed || !strings.Contains(got.stderr, want) {
			t.Errorf("%q: got %+v after %v, want %q", listen, got, time.Since(start), want)
		}
	}
}

func TestAdminAddress(t *testing.T) {
	for listen, want := range map[string]string{
		":9380": "127.0.0.1:9380", "0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", "10.0.0.1:1": "10.0.0.1:1", "[fd00::1]:1": "[fd00::1]:1", "admin:1": "admin:1",
	} {
		if got, err := adminTarget([]string{"X=y", "DRAGONTLS_ADMIN_LISTEN=" + listen}, ""); got.address != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", listen, got, err, want)
		}
	}
	if got, err := adminTarget(nil, ""); got.address != adminDefault || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestHealthcheckHasTheDefaultOfConfig(t *testing.T) {
	for _, v := range config.Variables() {
		if config.Prefix+v.Name == adminVariable {
			if got := strings.Trim(v.Default, "'"); got != adminDefault {
				t.Errorf("got %q, want %q", adminDefault, got)
			}
			return
		}
	}
	t.Errorf("config has no %s", adminVariable)
}
