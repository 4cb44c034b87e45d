//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dragontls/certs/pki"
	"dragontls/config"
	"dragontls/proxy"
)

// plainBinary is the program without the race detector, whose memory is another.
var plainBinary = sync.OnceValues(func() (string, error) {
	if !racing() {
		return binary()
	}
	path := filepath.Join(workDir, "dragontls-plain")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-pgo=off", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return path, err
})

// plainServing is a proxy without the race detector whose CA the test holds.
func plainServing(t testing.TB, ca *pki.CA, backend string, vars ...string) *instance {
	t.Helper()
	path, err := plainBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := ownPKI(t, ca)
	cmd := exec.Command(path, "serve")
	cmd.Dir, cmd.Env = dir, environ(append(proxyVars(backend), vars...)...)
	p := &instance{process: launch(t, cmd), dir: dir}
	line := p.wantLog("listening")
	p.addr, _ = line["address"].(string)
	p.admin, _ = line["admin"].(string)
	return p
}

// An identity that does its worst costs no more memory than MEMORY_LIMIT says, and another one notices nothing.
func TestMemoryStaysWithinItsLimitUnderAttack(t *testing.T) {
	const limit = 64 // MiB
	attacks := []struct {
		name     string
		sessions int
		worst    func(c *live)
	}{
		{"replies that nobody reads", 80, func(c *live) {
			go io.WriteString(c, strings.Repeat(array("GET", "big"), 40)) // ends with the bytes, or the connection
		}},
		{"half commands", 500, func(c *live) {
			io.WriteString(c, "*2\r\n$4\r\nECHO\r\n$60000\r\n"+strings.Repeat("x", 50000))
		}},
		{"half records", 500, func(c *live) { c.NetConn().Write([]byte{23, 3, 3, 0x40, 0x11, 0}) }},
		{"long records", 500, func(c *live) {
			io.WriteString(c, array("ECHO", strings.Repeat("x", 16000)))
			c.r.ReadString('\n')
		}},
	}
	for _, mode := range []string{"shared", "paired"} {
		t.Run(mode, func(t *testing.T) {
			ca, r := newCA(t, "memory"), redisServer(t)
			wantTool(t, strings.Repeat("x", 256<<10), "redis-cli", "-s", r.socket, "-x", "SET", "big")
			p := plainServing(t, ca, r.url(), "BACKEND_MODE="+mode, "MEMORY_LIMIT=64mb", "WRITE_TIMEOUT=5s", "LOG_LEVEL=info", "AUDIT_LOG=off").wantReady()
			honestTLS := p.clientTLS()
			greedyTLS := honestTLS.Clone()
			cert, key := pair(t, ca, pki.Leaf{CN: "greedy", Client: true})
			greedy, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			greedyTLS.Certificates = []tls.Certificate{greedy}
			honest := p.live(honestTLS)
			honest.ping()
			for _, attack := range attacks {
				p.forgetPeak()
				var all []*live
				for range attack.sessions {
					c := p.live(greedyTLS)
					all = append(all, c)
					attack.worst(c)
				}
				for range 300 {
					honest.ping()
					failNow(t)
				}
				for range 5 {
					p.live(honestTLS).ping()
					failNow(t)
				}
				peak := p.memory("VmHWM")
				t.Logf("%s: at most %.0f MiB", attack.name, peak)
				if most := 1.3*limit + 32; peak > most {
					t.Errorf("%s: %.0f MiB, want at most %.0f", attack.name, peak, most)
				}
				for _, c := range all {
					c.Close()
				}
			}
			p.wantEnd()
		})
	}
}

// failNow ends a test that has failed: what fails once may take as long again each time.
func failNow(t *testing.T) {
	t.Helper()
	if t.Failed() {
		t.FailNow()
	}
}

// What config assumes that sessions and handshakes cost is what proxy counts.
func TestConfigKnowsWhatSessionsCost(t *testing.T) {
	if config.SessionMemory != proxy.SessionMemory || config.HandshakeMemory != proxy.HandshakeMemory {
		t.Errorf("config has %d and %d, proxy %d and %d", config.SessionMemory, config.HandshakeMemory, proxy.SessionMemory, proxy.HandshakeMemory)
	}
}
