package proxy

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"dragontls/proxy/netio"
)

// Listener is a listener for Serve that can hand over to a successor: another process that listens on the same address.
type Listener struct {
	*net.TCPListener
	raw    syscall.RawConn
	tuned  bool // its connections need no netio.Tune
	shared bool // the address is shared by sockets, so that each process has an accept queue of its own

	leaving atomic.Bool // connections that had begun before HandOver have had their time to arrive
}

// emptyTime is how long the accept queue must have been empty before a listener that hands over is closed.
const emptyTime = 10 * time.Millisecond

// Listen returns a listener on a TCP address, such as ":6380". The durations are those of Config. On Linux, connections get
// their options from the listener, which saves each of them some ten system calls, and a process of the same user may listen
// on the same address at the same time (see HandOver).
func Listen(address string, keepAlive, writeTimeout time.Duration) (*Listener, error) {
	l := &Listener{}
	c := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) error {
		l.tuned = netio.TuneListener(raw, keepAlive, writeTimeout)
		l.shared = netio.ShareAddress(raw)
		return nil
	}}
	c.SetMultipathTCP(false) // its sockets take not all of the options
	ln, err := c.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := l.adopt(ln); err != nil {
		return nil, err
	}
	// What a process before the last one has left in the kernel would lead all new connections here.
	netio.LeadNowhere(l.raw)
	return l, nil
}

// Inherit returns a Listener for one that another process has opened, such as systemd. It must be of TCP. The socket belongs to
// that process: what is in its accept queue at the end stays there for the next process that listens.
func Inherit(ln net.Listener) (*Listener, error) {
	l := &Listener{}
	if err := l.adopt(ln); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Listener) adopt(ln net.Listener) error {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		ln.Close()
		return errors.New("the inherited socket " + ln.Addr().String() + " is not of TCP")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		tcp.Close()
		return err
	}
	l.TCPListener, l.raw = tcp, raw
	return nil
}

// IsServed reports whether some process listens on a TCP address. It is a hint: the answer may have changed already.
func IsServed(address string) bool {
	c := net.ListenConfig{}
	c.SetMultipathTCP(false)
	ln, err := c.Listen(context.Background(), "tcp", address)
	if err != nil {
		return errors.Is(err, syscall.EADDRINUSE)
	}
	ln.Close()
	return false
}

// Accept returns the next connection. Once the listener has handed over, and its accept queue is empty, it closes the listener
// and returns net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.TCPListener.Accept()
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return conn, err
		}
		if l.leaving.Load() && !netio.AcceptsMore(l.raw) {
			l.Close()
			return nil, net.ErrClosed
		}
		l.SetDeadline(time.Now().Add(emptyTime))
	}
}

// HandOver closes the listener without refusing a connection, if another process listens on the same address or will do so
// within a second: new connections go to the successor from now on, those that have begun have patience to arrive, and then
// Accept returns what has arrived. HandOver does not wait for that.
func (l *Listener) HandOver(patience time.Duration) {
	if !l.shared {
		l.Close() // of an inherited socket, only our descriptor
		return
	}
	netio.LeadToSuccessor(l.raw)
	time.AfterFunc(patience, func() { // does nothing if the listener is closed by then
		l.leaving.Store(true)
		netio.DropNewcomers(l.raw)
		l.SetDeadline(time.Now().Add(emptyTime))
	})
}
