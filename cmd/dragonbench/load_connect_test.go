package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// greeter is a TLS server that answers a close_notify with its own, ends each connection after its client, and tells how the
// client did that. It ends with the test.
type greeter struct {
	net.Listener
	files *tlsFiles
	count atomic.Int64
	ends  func(error) // nil for a FIN
}

func newGreeter(t *testing.T, ends func(error)) *greeter {
	t.Helper()
	a, err := newAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(a.files.ServerCert, a.files.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &greeter{Listener: l, files: a.files, ends: ends}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			g.count.Add(1)
			serving.Go(func() { g.serve(conn.(*net.TCPConn), config) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return g
}

func (g *greeter) serve(conn *net.TCPConn, config *tls.Config) {
	defer conn.Close()
	c := tls.Server(conn, config)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return
	}
	c.CloseWrite()
	_, err := conn.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	g.ends(err)
}

func TestHandshakesEndByAResetOrInOrder(t *testing.T) {
	for _, orderly := range []bool{false, true} {
		ends := make(chan error, 1)
		s := newGreeter(t, func(err error) { ends <- err })
		config, err := s.files.client()
		if err != nil {
			t.Fatal(err)
		}
		g := &generator{work: work{Kind: handshakes, Address: s.Addr().String(), Orderly: orderly}, rec: newRecorder()}
		if err := g.connect(context.Background(), config, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-ends; orderly && err != nil || !orderly && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("orderly %v: it ended by %v", orderly, err)
		}
	}
}

// A burst is as many connections as it is told, and the first of each client, which fetches a ticket, is none of them.
func TestBurstsAreAsLargeAsTheyAreTold(t *testing.T) {
	for _, resume := range []bool{false, true} {
		s := newGreeter(t, func(error) {})
		w := work{Kind: bursts, Address: s.Addr().String(), TLS: s.files, Connections: 3, Burst: 20, Resume: resume, Orderly: true}
		got := loadUntil(t, w, func(window) bool { return true })
		want := int64(20)
		if got.Count != want || len(got.Errors) != 0 || got.Seconds <= 0 {
			t.Errorf("resume %v: got %+v, want %d connections and no errors", resume, got, want)
		}
		if resume {
			want += 3
		}
		if n := s.count.Load(); n != want {
			t.Errorf("resume %v: the server saw %d connections, want %d", resume, n, want)
		}
	}
}
