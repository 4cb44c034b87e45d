//go:build unix

package main

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// Hundreds of half requests and silent connections take the admin listener from nobody.
func TestAdminListenerStaysReachable(t *testing.T) {
	const others = 300
	p := serving(t, redisServer(t).url()).wantReady()
	var ended atomic.Int64
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for i := range others {
		c, err := net.Dial("tcp", p.admin)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, []string{"", "GET /livez HTTP/1.1\r\nHost: x\r\n", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"}[i%3])
		waiting.Go(func() { // ends with c
			io.Copy(io.Discard, c)
			ended.Add(1)
		})
	}
	eventually(t, "the oldest have lost their places", func() bool { return ended.Load() >= others-32 })
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/status.json", "/"} {
		if code, body := p.get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	dragontls(t, p.dir, []string{"healthcheck"}, []string{"ADMIN_LISTEN=" + p.admin}).wantExit(exitOK)
	p.wantEnd()
}
