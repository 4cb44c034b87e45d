package backend

import (
	"bytes"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"dragontls/proxy/netio"
)

// watchedConn notes writes that run beside one another.
type watchedConn struct {
	net.Conn
	begun  chan struct{} // gets one when a write has begun
	inside atomic.Int32
	beside atomic.Bool
}

func (c *watchedConn) Write(b []byte) (int, error) {
	if c.inside.Add(1) > 1 {
		c.beside.Store(true)
	}
	defer c.inside.Add(-1)
	c.begun <- struct{}{}
	for range 100 { // for others to come in, where they may
		runtime.Gosched()
	}
	return c.Conn.Write(b)
}

// QUIT waits for a write that has not returned yet, although its reply has come.
func TestQuitIsNotWrittenBesideAnotherWrite(t *testing.T) {
	t.Parallel()
	ln := listen(t, "127.0.0.1:0")
	b := New(Config{Target: nowhere, Buffers: netio.NewBuffers(0)})
	for range 200 {
		raw, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		sock, err := netio.NewSocket(raw, b.c.Buffers.NewAccount(), 0)
		if err != nil {
			t.Fatal(err)
		}
		w := &watchedConn{Conn: sock, begun: make(chan struct{}, 2)}
		c := &Conn{Socket: sock, Stream: w}
		written := make(chan error, 1)
		go func() { // ends with the write
			_, err := c.Write(bytes.Repeat([]byte("x"), 100))
			written <- err
		}()
		<-w.begun
		b.Part(c)
		if err := <-written; err != nil || w.beside.Load() {
			t.Fatalf("wrote beside one another: %v; %v", w.beside.Load(), err)
		}
		peer.Close()
		b.partings.running.Wait()
	}
}
