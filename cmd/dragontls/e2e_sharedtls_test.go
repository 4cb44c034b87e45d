//go:build unix

package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dragontls/certs/pki"
)

// tlsRedis is redis-server that speaks TLS on a port, wants a certificate there and a password.
type tlsRedis struct {
	*redis
	at   netip.AddrPort
	vars []string // of the proxy
}

func newTLSRedis(t testing.TB) *tlsRedis {
	t.Helper()
	ca := newCA(t, "backend")
	caFile := filepath.Join(t.TempDir(), "ca.crt")
	write(t, caFile, ca.PEM())
	r := &tlsRedis{at: ownAddress()}
	leaf := serverLeaf()
	leaf.IPs = append(leaf.IPs, r.at.Addr().AsSlice())
	serverCert, serverKey := pair(t, ca, leaf)
	clientCert, clientKey := pair(t, ca, pki.Leaf{CN: "dragontls", Client: true})
	r.redis = lockedRedis(t, "--bind", r.at.Addr().String(), "--tls-port", fmt.Sprint(r.at.Port()),
		"--tls-cert-file", serverCert, "--tls-key-file", serverKey, "--tls-ca-cert-file", caFile)
	r.vars = []string{"BACKEND_CA_FILE=" + caFile, "BACKEND_CERT_FILE=" + clientCert, "BACKEND_KEY_FILE=" + clientKey,
		"BACKEND_MODE=shared", "BACKEND_LANES=1", "BACKEND_PASSWORD=" + backendPassword}
	return r
}

func (r *tlsRedis) sharing(t testing.TB) *instance {
	t.Helper()
	return serving(t, "rediss://"+r.at.String(), r.vars...).wantReady()
}

// The sessions of an identity share a connection over TLS, and what is too big for it goes over one of the session's own.
func TestSessionsShareAConnectionOverTLSToTheBackend(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
			r.wantBlocked(t, 1)
			vanish(l)
			r.wantBlocked(t, 0)
			r.observe("LPUSH", "q", "element")
			if got := r.observe("LRANGE", "q", "0", "-1"); got != "element" {
				t.Errorf("got %q, want the element", got)
			}
			r.observe("DEL", "q")
		})
	}
	p.wantEnd()
}

// The same where redis-server speaks TLS.
func TestKilledBackendOverTLSIsFoundAgain(t *testing.T) {
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
		r.start(t)
		c.more(t, 1)
		c.wantState(t, r.redis)
	}
	c.more(t, 5)
	c.end(t)
	p.wantEnd()
}
