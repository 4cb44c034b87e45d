package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}

// 1,000 connections end in every way there is; nothing is left of them.
func TestNothingIsLeftOfConnectionsThatEnd(t *testing.T) {
	eachModeAlone(t, func(t *testing.T, m mode) {
		d := dragonflyAt(t, proxytest.Options{})
		toBackend, err := proxytest.NewRelay(d.Addr(), proxytest.Faults{})
		if err != nil {
			t.Fatal(err)
		}
		defer toBackend.Close()
		h := m.start(t, toBackend.Addr(), func(c *Config) { c.Backend.Lanes = 1 })
		toProxy, err := proxytest.NewRelay(h.addr, proxytest.Faults{})
		if err != nil {
			t.Fatal(err)
		}
		defer toProxy.Close()
		h.wantReady(true, "")
		h.dial().do("+OK\r\n", "SET", "big", strings.Repeat("x", 150000))
		eventually(t, "one session", func() bool { return h.Stats().Sessions == 1 })
		before := openFiles(t)

		cuts := []proxytest.Cut{proxytest.CutReset, proxytest.CutFIN, proxytest.CutHalfClose}
		var faults []proxytest.Faults
		for _, how := range cuts {
			for _, at := range []int{100, 3000, 20000, 60000} { // in the handshake, in a frame, in a value
				faults = append(faults,
					proxytest.Faults{ToTarget: proxytest.Fault{Cut: at, CutWith: how}},
					proxytest.Faults{ToClient: proxytest.Fault{Cut: at, CutWith: how}})
			}
		}
		faults = append(faults, proxytest.Faults{}, proxytest.Faults{
			ToTarget: proxytest.Fault{MaxPiece: 5000, Random: true}, ToClient: proxytest.Fault{MaxPiece: 5000, Random: true}, Seed: 1})
		const rounds, each = 20, 25
		for _, side := range []*proxytest.Relay{toProxy, toBackend} {
			for i := range rounds {
				side.SetFaults(faults[(i*7)%len(faults)])
				var wg sync.WaitGroup
				for n := range each {
					wg.Go(func() { abused(toProxy.Addr(), n) })
				}
				wg.Wait()
			}
			side.SetFaults(proxytest.Faults{})
		}
		eventually(t, fmt.Sprintf("all is gone: %v", h.Stats()), func() bool {
			st := h.Stats()
			return st.Sessions == 1 && st.Handshaking == 0 && st.BackendConnections == 1 && st.BufferBytes == 0 &&
				toProxy.Conns() == 0 && openFiles(t) <= before+2 // the prober may have dialled anew
		})
		st := h.Stats()
		known := []closeReason{closeClient, closeClientError, closeQuit, closeProtocol, closeBackend, closeBackendError, closeUnavailable, closeSlow}
		for reason := range st.SessionsClosed {
			if !slices.Contains(known, closeReason(reason)) {
				t.Errorf("a session ended for %s: %v", reason, st.SessionsClosed)
			}
		}
		var total uint64
		for _, n := range st.SessionsClosed {
			total += n
		}
		if ok := h.refused(handshakeOK); total+1 != ok {
			t.Errorf("%d handshakes, %d sessions ended", ok, total)
		}
	})
}

// abused uses one connection and ends it in its own way, whatever happens meanwhile.
func abused(addr string, n int) {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer raw.Close()
	// A cut may leave it without an end: then it goes. However early that is for a slow machine, it is one more way to end.
	raw.SetDeadline(time.Now().Add(time.Second))
	c := tls.Client(raw, testPKI().clientConfig())
	if c.Handshake() != nil {
		return
	}
	send := cmd("PING") + cmd("SET", fmt.Sprint(n), strings.Repeat("v", 90000)) + cmd("GET", "big")
	switch n % 5 {
	case 0:
		io.WriteString(c, send+cmd("QUIT"))
		io.Copy(io.Discard, c)
	case 1:
		io.WriteString(c, send+cmd("BLPOP", "nothing", "0"))
		io.CopyN(io.Discard, c, 100000)
		raw.(*net.TCPConn).SetLinger(0)
	case 2:
		io.WriteString(c, send)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	case 3:
		io.WriteString(c, send+"*0\r\n")
		io.Copy(io.Discard, c)
	case 4:
		io.WriteString(c, send+cmd("SUBSCRIBE", "ch"))
		io.CopyN(io.Discard, c, 10)
		c.Close()
	}
}
