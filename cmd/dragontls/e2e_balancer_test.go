//go:build unix

package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// haproxyTo starts HAProxy in front of an address, with health checks and an option of its `server` line, and returns where it listens.
func haproxyTo(t *testing.T, address, option string) string {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy"
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "haproxy is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	inherited, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	write(t, config, fmt.Appendf(nil, `defaults
  mode tcp
  timeout connect 60s
  timeout client 600s
  timeout server 600s
listen redis
  bind fd@3
  server dragontls %s check inter 20ms %s
`, address, option))
	cmd := exec.Command(path, "-db", "-f", config)
	cmd.ExtraFiles = []*os.File{inherited}
	launch(t, cmd)
	return ln.Addr().String()
}

// Behind HAProxy, logs and limits know the client, and health checks are not worth a line.
func TestBehindHAProxy(t *testing.T) {
	for _, option := range []string{"send-proxy", "send-proxy-v2"} {
		t.Run(option, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, mode string) {
				p := serving(t, redisServer(t).url(), "BACKEND_MODE="+mode, "PROXY_PROTOCOL_FROM=127.0.0.1", "MAX_CONNECTIONS=1").wantReady()
				address := haproxyTo(t, p.addr, option)
				c, err := tls.Dial("tcp", address, p.clientTLS())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				wantAnswer(t, c, "PING", "+PONG\r\n")
				if line := p.wantLog("session accepted"); line["remote"] != c.LocalAddr().String() {
					t.Errorf("accepted %v, want the client %s", line["remote"], c.LocalAddr())
				}
				late, err := tls.Dial("tcp", address, p.clientTLS())
				if err != nil {
					t.Fatal(err)
				}
				defer late.Close()
				late.SetDeadline(time.Now().Add(patience))
				wantAnswer(t, late, "PING", "-ERR dragontls: the proxy has its most connections")
				eventually(t, "the limit is told", func() bool { return len(p.limitLines("MAX_CONNECTIONS")) > 0 })
				if line := p.limitLines("MAX_CONNECTIONS")[0]; line["remote"] != late.LocalAddr().String() {
					t.Errorf("refused %v, want the client %s", line, late.LocalAddr())
				}
				p.wantAtLeast(3, "handshakes_total", "reason", "closed") // health checks
				for _, line := range p.logged("handshake refused") {
					if line["level"] != "debug" {
						t.Errorf("logged %v", line)
					}
				}
				if direct, err := tls.Dial("tcp", p.addr, p.clientTLS()); err == nil {
					direct.Close()
					t.Error("a peer that must send a header and sends none is served")
				}
				p.wantMetric(1, "handshakes_total", "reason", "proxy_header")
			})
		})
	}
}
