package proxy

import (
	"testing"

	"dragontls/proxy/proxytest"
)

// Each session of these has a client, a TLS connection and a place in the table.
func BenchmarkSessionListOf1000(b *testing.B) {
	h := start(b, dragonflyAt(b, proxytest.Options{}).Addr(), share)
	for range 1000 {
		h.dial().do("+PONG\r\n", "PING")
	}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(h.SessionList()); n != 1000 {
			b.Fatalf("%d sessions", n)
		}
	}
}
