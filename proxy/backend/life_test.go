package backend

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"dragontls/proxy/netio"
)

// witnessed is a Backend whose connections a test answers.
type witnessed struct {
	*Backend
	t     testing.TB
	conns chan net.Conn
	over  chan *Life
}

func newWitnessed(t *testing.T) *witnessed {
	t.Helper()
	w := &witnessed{t: t, conns: make(chan net.Conn), over: make(chan *Life, 16)}
	ln := listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case w.conns <- c:
			case <-ctx.Done():
				c.Close()
			}
		}
	}()
	w.follow(ln.Addr().String())
	t.Cleanup(cancel)
	return w
}

// follow keeps a witness at the address.
func (w *witnessed) follow(address string) {
	ctx, cancel := context.WithCancel(context.Background())
	w.Backend = New(Config{
		Target:  func() (string, string, error) { return "tcp", address, nil },
		Buffers: netio.NewBuffers(0), Moved: func(Move) {}, LifeOver: func(l *Life) { w.over <- l },
	})
	stopped := make(chan struct{})
	go func() { // ends with ctx
		w.witness(ctx)
		close(stopped)
	}()
	w.t.Cleanup(func() { cancel(); <-stopped })
}

// begin answers the SUBSCRIBE of a witness, and returns its life and the backend's end of it.
func (w *witnessed) begin(reply string) (*Life, *bufio.ReadWriter, net.Conn, error) {
	w.t.Helper()
	var c net.Conn
	var rw *bufio.ReadWriter
	answered := make(chan struct{})
	go func() { // ends with what a witness asks first
		defer close(answered)
		c = <-w.conns
		rw = bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
		takeLines(w.t, rw, 5) // SUBSCRIBE and its channel
		_, _ = c.Write([]byte(reply))
	}()
	l, err := w.Life(w.t.Context())
	<-answered
	w.t.Cleanup(func() { c.Close() })
	return l, rw, c, err
}

func takePing(t testing.TB, r *bufio.ReadWriter) { takeLines(t, r, 3) }

func takeLines(t testing.TB, r *bufio.ReadWriter, n int) {
	for range n {
		if _, err := r.ReadString('\n'); err != nil {
			t.Error(err)
		}
	}
}

// A life goes on while its witness is silent, and is over when its witness ends. Then the next one is another.
func TestLifeLastsAsLongAsItsWitness(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *witnessed, c net.Conn){
		"closed":               func(_ *witnessed, c net.Conn) { c.Close() },
		"reset":                func(_ *witnessed, c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() },
		"a reply nobody asked": func(_ *witnessed, c net.Conn) { c.Write([]byte(strings.Repeat("+PONG\r\n", 100))) },
		"no reply":             func(_ *witnessed, c net.Conn) { c.Write([]byte("HTTP/1.1 200 OK\r\n")) },
		"the backend moves":    func(w *witnessed, _ net.Conn) { w.lives.leave(Move{N: 1}) },
		"it moves in place":    func(w *witnessed, _ net.Conn) { w.lives.leave(Move{N: 1, InPlace: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWitnessed(t)
			l, rw, c, err := w.begin("-NOAUTH Authentication required.\r\n")
			if err != nil {
				t.Fatal(err)
			}
			if same, err := w.Life(t.Context()); same != l || err != nil {
				t.Errorf("another life, %v", err)
			}
			impatient, cancel := context.WithCancel(t.Context())
			cancel()
			if err := l.Confirm(impatient, new(Conn)); !errors.Is(err, context.Canceled) || l.Over() {
				t.Errorf("a witness that is silent: %v, over: %v", err, l.Over())
			}
			confirmed := make(chan error)
			go func() { confirmed <- l.Confirm(t.Context(), new(Conn)) }() // ends with the replies below
			takePing(t, rw)
			takePing(t, rw)
			if _, err := c.Write([]byte("+PONG\r\n+PONG\r\n")); err != nil {
				t.Fatal(err)
			}
			if err := <-confirmed; err != nil || l.Over() {
				t.Errorf("a witness that answers: %v, over: %v", err, l.Over())
			}
			end(w, c)
			if got := <-w.over; got != l {
				t.Error("another life is over")
			}
			if err := l.Confirm(t.Context(), new(Conn)); !errors.Is(err, ErrLifeOver) || !l.Over() {
				t.Errorf("after the end: %v, over: %v", err, l.Over())
			}
			next, _, _, err := w.begin("-NOPERM this user has no permissions\r\n")
			if err != nil || next == l || next.Over() {
				t.Errorf("the next life: %v", err)
			}
		})
	}
}

// A backend that is full has taken no connection, and one that can do nothing now has not said whether the witness may subscribe: there is
// no life that could never be recognised.
func TestBackendThatCannotAnswerHasNoLife(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{
		"full":            "-ERR max number of clients reached\r\n",
		"loading":         "-LOADING Redis is loading the dataset in memory\r\n",
		"runs a long one": "-BUSY Redis is busy running a script.\r\n",
		"something else":  "+PONG\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWitnessed(t)
			if l, _, _, err := w.begin(reply); l != nil || !errors.Is(err, ErrBusy) && !errors.Is(err, ErrUnasked) {
				t.Errorf("got %v, %v", l, err)
			}
		})
	}
}
