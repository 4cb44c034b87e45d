package certs

import (
	"crypto"
	"crypto/elliptic"
	"crypto/tls"
	mathrand "math/rand/v2"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// threadTime is the CPU time of this goroutine's thread, which must be locked.
func threadTime(b *testing.B) time.Duration {
	const thisThread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thisThread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverTime makes one handshake and returns what it cost the server.
func serverTime(b *testing.B, l net.Listener, server, client *tls.Config) (cost time.Duration, err error) {
	done := make(chan struct{})
	go func() { // ends with the handshake
		defer close(done)
		conn, err := tls.Dial("tcp", l.Addr().String(), client)
		if err == nil {
			_, _ = conn.Read(make([]byte, 1)) // a TLS 1.3 server refuses afterwards
			conn.Close()
		}
	}()
	raw, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	begin := threadTime(b)
	err = tls.Server(raw, server).Handshake()
	cost = threadTime(b) - begin
	raw.Close()
	<-done
	return cost, err
}

// BenchmarkHostileHandshake prints what a refused handshake costs the server of
// CPU time, as a multiple of an honest one (x-honest). Each is followed by an
// honest one, so that a busy machine slows both. The proxy reads no flight above
// 12 KiB, so none is larger here.
func BenchmarkHostileHandshake(b *testing.B) {
	f := newFixture(b)
	s := f.open()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	large := rsaKey(b, 8192)
	root := subjectOf(b, f.ca)
	sub, err := f.ca.Intermediate("sub")
	if err != nil {
		b.Fatal(err)
	}
	r := mathrand.New(mathrand.NewPCG(1, 0))
	manyURIs := func(n int) (names []string) {
		for range n {
			names = append(names, "/"+strings.Repeat("a", 1+r.IntN(2)))
		}
		return names
	}
	middle := subjectOf(b, sub)
	crossSigned := hostile(b, middle, curveKey(b, elliptic.P384()), 2)
	crossSigned.Certificate = append([][]byte{crossSigned.Certificate[0], der(sub.PEM())}, crossSigned.Certificate[1:]...)
	for name, client := range map[string]tls.Certificate{
		"RSA-8192, 8 CAs":   stranger(b, root, junkCAs(b, root, large, 8), rsaKey(b, 2048)),
		"P-521, 8 CAs":      hostile(b, root, curveKey(b, elliptic.P521()), 8),
		"RSA-8192, 3 CAs":   hostile(b, root, large, 3),
		"RSA-4096, 3 CAs":   hostile(b, root, rsaKey(b, 4096), 3),
		"P-384, 3 CAs":      hostile(b, root, curveKey(b, elliptic.P384()), 3),
		"9 KiB of URIs":     hostile(b, root, curveKey(b, elliptic.P384()), 1, manyURIs(1750)...),
		"11 KiB of URIs":    hostile(b, root, curveKey(b, elliptic.P384()), 1, manyURIs(2200)...),
		"a real CA, reused": crossSigned,
	} {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var hostile, honest time.Duration
			attack := f.clientConfig()
			attack.Certificates, attack.GetClientCertificate = nil, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }
			for b.Loop() {
				cost, err := serverTime(b, l, s.TLSConfig(), attack)
				if err == nil {
					b.Fatal("let in")
				}
				hostile += cost
				cost, err = serverTime(b, l, s.TLSConfig(), f.clientConfig())
				if err != nil {
					b.Fatal(err)
				}
				honest += cost
			}
			b.ReportMetric(float64(hostile)/float64(honest), "x-honest")
			b.ReportMetric(float64(honest.Microseconds())/float64(b.N), "us/honest")
		})
	}
}

// hostile is a stranger whose CAs all share a name and a key.
func hostile(b *testing.B, subject []byte, key crypto.Signer, n int, names ...string) tls.Certificate {
	return stranger(b, subject, junkCAs(b, subject, key, n, names...), key)
}
