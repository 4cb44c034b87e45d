package proxy

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/rs/zerolog"

	"dragontls/proxy/netio"
)

// A client that sends no more while the session waits ends it at once only where a command of it waits for other clients. A
// subscriber goes on: what it sent before its end is still to be answered.
func TestClientThatSendsNoMoreEndsOnlyABlockedSession(t *testing.T) {
	t.Parallel()
	srv, err := New(Config{TLS: testPKI().serverConfig(), Backend: BackendConfig{Target: backendAt("")}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client := dialPlain(t, ln.Addr().String())
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	sock, err := netio.NewSocket(accepted, srv.buffers.NewAccount(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(srv, sock, tls.Server(sock, srv.tls))
	s.queue.counting.Store(uncounted)
	if fin, ended := s.lookAtClient(); fin || ended {
		t.Fatalf("before its end: fin %v, ended %v", fin, ended)
	}
	if err := client.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end is here", func() bool { fin, _ := sock.HungUp(); return fin })
	if fin, ended := s.lookAtClient(); !fin || ended || s.ended() {
		t.Errorf("a subscriber: fin %v, ended %v", fin, ended)
	}
	s.queue.blocked = 1
	if fin, ended := s.lookAtClient(); !fin || !ended || s.reason != closeClient {
		t.Errorf("a command waits: fin %v, ended %v, reason %q", fin, ended, s.reason)
	}
}
