//go:build unix

package main

import (
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dragontls/certs/pki"
)

// tlsRedis is redis-server that speaks TLS on a port, wants a certificate there and a password.
type tlsRedis struct {
	*redis
	port int
	args []string
	vars []string // of the proxy
}

func newTLSRedis(t testing.TB) *tlsRedis {
	t.Helper()
	ca := newCA(t, "backend")
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	write(t, caFile, ca.PEM())
	serverCert, serverKey := pair(t, ca, serverLeaf())
	clientCert, clientKey := pair(t, ca, pki.Leaf{CN: "dragontls", Client: true})
	r := &tlsRedis{port: freePort(t)}
	r.args = []string{"--tls-port", strconv.Itoa(r.port), "--tls-cert-file", serverCert, "--tls-key-file", serverKey, "--tls-ca-cert-file", caFile}
	r.vars = []string{"BACKEND_CA_FILE=" + caFile, "BACKEND_CERT_FILE=" + clientCert, "BACKEND_KEY_FILE=" + clientKey,
		"BACKEND_MODE=shared", "BACKEND_PASSWORD=" + backendPassword}
	r.begin(t)
	return r
}

// begin starts it, and starts it again at the same port.
func (r *tlsRedis) begin(t testing.TB) {
	t.Helper()
	r.redis = lockedRedisAt(t, 0, r.args...)
}

func (r *tlsRedis) sharing(t testing.TB) *instance {
	t.Helper()
	return serving(t, "rediss://localhost:"+strconv.Itoa(r.port), r.vars...).wantReady()
}

// The sessions of an identity share a connection over TLS, and what is too big for it goes over one of the session's own.
func TestSessionsShareAConnectionOverTLSToTheBackend(t *testing.T) {
	r := newTLSRedis(t)
	p := r.sharing(t)
	var all []*live
	for i := range 5 {
		l := p.live(p.clientTLS())
		name := strconv.Itoa(i)
		l.want(l.ask("SET", name, name), "+OK")
		l.want(l.raw(strings.Repeat(array("GET", name), 100)), name)
		for range 99 {
			l.want(l.reply(), name)
		}
		all = append(all, l)
	}
	m := p.metrics()
	if lanes, own := m.sum("backend_connections", "kind", "lane"), m.sum("backend_connections", "kind", "own"); lanes != 1 || own != 0 {
		t.Errorf("%v lanes and %v own connections, want 1 and none", lanes, own)
	}
	if got := m.sum("commands_total", "command", "GET", "path", "lane"); got != 500 {
		t.Errorf("%v GETs rode a lane, want 500", got)
	}
	for _, size := range []int{16 << 10, 60 << 10, 900 << 10, 8 << 20} {
		big := strings.Repeat("0123456789abcdef", size/16)
		all[0].want(all[0].ask("SET", "big", big), "+OK")
		for _, l := range all {
			if got := l.ask("GET", "big"); got != big {
				t.Errorf("%d bytes came back as %d, or others", size, len(got))
			}
			l.want(l.ask("GET", "3"), "3")
		}
	}
	if m := p.metrics(); m.sum("sessions_closed_total") != 0 || m.sum("backend_errors_total") != 0 {
		t.Errorf("%v sessions closed, %v errors of the backend", m.sum("sessions_closed_total"), m.sum("backend_errors_total"))
	}
	p.wantEnd()
}

// A client that vanishes while BLPOP waits takes no element with it, over TLS neither.
func TestNoElementIsPoppedOverTLSForAClientThatVanished(t *testing.T) {
	r := newTLSRedis(t)
	p := r.sharing(t)
	for ending, vanish := range map[string]func(l *live){
		"closed":      func(l *live) { l.Close() },
		"half-closed": func(l *live) { l.CloseWrite(); l.NetConn().(*net.TCPConn).CloseWrite() },
		"reset":       func(l *live) { l.NetConn().(*net.TCPConn).SetLinger(0); l.NetConn().Close() },
	} {
		t.Run(ending, func(t *testing.T) {
			l := p.live(p.clientTLS())
			l.t = t
			l.ask("GET", "x")
			if _, err := io.WriteString(l, array("BLPOP", "q", "0")+array("GET", "x")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "BLPOP waits", func() bool { return strings.Contains(r.observe("INFO", "clients"), "blocked_clients:1") })
			vanish(l)
			eventually(t, "nobody waits", func() bool { return strings.Contains(r.observe("INFO", "clients"), "blocked_clients:0") })
			r.observe("LPUSH", "q", "element")
			if got := r.observe("LRANGE", "q", "0", "-1"); got != "element" {
				t.Errorf("got %q, want the element", got)
			}
			r.observe("DEL", "q")
		})
	}
	p.wantEnd()
}

// kill -9 of a redis-server behind TLS costs sessions on lanes no more than errors in place of replies.
func TestKilledBackendOverTLSCostsNoSession(t *testing.T) {
	t.Parallel() // most of its time it waits
	r := newTLSRedis(t)
	p := r.sharing(t)
	c := riders(t, p, 12, true)
	for range envInt(t, "E2E_KILLS", 2) {
		p.wantOwn(0) // their names and databases were told on connections of their own
		c.more(t, 5)
		bad := c.bad()
		r.kill()
		c.until(t, "every session notices", func() bool { return beyond(c.bad(), bad, 1) })
		r.begin(t)
		c.more(t, 1)
		c.wantState(t, r.redis)
	}
	c.more(t, 5)
	c.end(t)
	p.wantEnd()
}
