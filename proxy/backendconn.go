package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"

	"dragontls/proxy/resp"
)

// backendConn is one connection to the store. Its owner reads in one goroutine; writes wait for one another.
type backendConn struct {
	sock    *socket
	conn    net.Conn // sock, or the TLS connection over it
	tls     *tls.Conn
	buffers *buffers
	release func()
	once    sync.Once
	writing sync.Mutex

	user        string                                    // whom dragontls authenticated as
	credentials func() (user, password string, err error) // nil: it did not
	small       []byte                                    // of a TLS connection
	full        bool
}

// authenticated says that this connection acts as a user whom dragontls chose.
func (c *backendConn) authenticated() bool { return c.credentials != nil }

// receive returns bytes that live until free is called with the rest of what it returned.
func (c *backendConn) receive() ([]byte, *chunk, error) {
	if c.tls == nil {
		return c.sock.receive()
	}
	// crypto/tls wants room before it waits: little of it, and more only for what is there already.
	if c.full {
		k := c.buffers.chunk()
		c.sock.beforeWait = func() error { return errWouldWait }
		n, err := c.tls.Read(k[:])
		c.sock.beforeWait = nil
		if !errors.Is(err, errWouldWait) {
			return k[:n], k, err
		}
		c.buffers.freeChunk(k)
	}
	if c.small == nil {
		c.small = make([]byte, 512)
	}
	n, err := c.tls.Read(c.small)
	c.full = n == len(c.small)
	return c.small[:n], nil, err
}

func (c *backendConn) free(k *chunk) {
	if k != nil {
		c.buffers.freeChunk(k)
	}
}

// write sends b. The lock is for the AUTH behind a refused RESET: the pump has seen the reply to a write of the reader
// that may not have returned yet.
func (c *backendConn) write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.conn.Write(b)
}

func (c *backendConn) closeWrite() {
	if c.tls != nil {
		c.tls.CloseWrite()
		return
	}
	c.sock.closeWrite()
}

// close ends the connection; any number of times, from any goroutine.
func (c *backendConn) close() {
	c.once.Do(func() {
		c.sock.Close()
		if c.release != nil {
			c.release()
		}
	})
}

// introduce authenticates the connection where there is a password, names it where there is a name, and waits for
// all answers. A PING goes before AUTH where clients have users of their own or the user is not default, and must be
// refused: a backend that serves connections without AUTH would let a client drop the user it was given.
func (c *backendConn) introduce(l *login, user, password string) error {
	var out []byte
	var want []func(*resp.Replies) error
	if l.mapped || password != "" && user != "" && user != "default" {
		out = resp.AppendCommand(out, "PING")
		want = append(want, isNoAuth)
	}
	if password != "" {
		out = appendAuth(out, user, password)
		want = append(want, isOK)
	}
	if l.name != "" {
		out = resp.AppendCommand(out, "CLIENT", "SETNAME", l.name)
		want = append(want, isOKOrError)
	}
	if len(want) == 0 {
		return nil
	}
	if _, err := c.write(out); err != nil {
		return err
	}
	return c.expect(want)
}

// authenticateAgain sends AUTH as at the dial, with the password as it is now, and waits for its +OK.
func (c *backendConn) authenticateAgain() error {
	user, password, err := c.credentials()
	if err != nil {
		return err
	}
	if user != c.user || password == "" {
		return errBackendAuth // the proxy acts as somebody else by now
	}
	if _, err := c.write(appendAuth(nil, user, password)); err != nil {
		return err
	}
	return c.expect([]func(*resp.Replies) error{isOK})
}

// appendAuth appends AUTH, never HELLO .. AUTH, whose password MONITOR shows.
func appendAuth(b []byte, user, password string) []byte {
	if user == "" {
		return resp.AppendCommand(b, "AUTH", password)
	}
	return resp.AppendCommand(b, "AUTH", user, password)
}

// isOKOrError judges the reply to CLIENT SETNAME: a name is worth no connection, but nothing else answers it.
func isOKOrError(r *resp.Replies) error {
	switch {
	case isFull(r):
		return errBackendBusy // and it closes
	case r.Kind() == '-', r.Kind() == '+' && string(r.Line()) == "OK":
		return nil
	}
	return errBackendUnasked
}

func isNoAuth(r *resp.Replies) error {
	if r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "NOAUTH") {
		return nil
	}
	if isBusy(r) {
		return errBackendBusy
	}
	return errBackendOpen
}

func isOK(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	if isBusy(r) {
		return errBackendBusy
	}
	return errBackendAuth
}

// expect reads exactly the replies that want judges, and nothing behind them.
func (c *backendConn) expect(want []func(*resp.Replies) error) error {
	var r resp.Replies
	for len(want) > 0 {
		b, k, err := c.receive()
		for len(b) > 0 && err == nil {
			if len(want) == 0 {
				err = errBackendUnasked
				break
			}
			var n int
			var done bool
			if n, done, err = r.Next(b); err == nil && done {
				err = want[0](&r)
				want = want[1:]
			}
			b = b[n:]
		}
		c.free(k)
		if err != nil {
			return err
		}
	}
	return nil
}

// drop closes the connection and gives back what was read ahead; for the goroutine that reads.
func (c *backendConn) drop() {
	c.close()
	c.sock.release()
}

// isBusy recognises what a backend says that looks at no credentials yet.
func isBusy(r *resp.Replies) bool {
	return isFull(r) || r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "LOADING")
}

// isFull recognises what a backend says before it closes a connection that is beyond its maxclients.
func isFull(r *resp.Replies) bool {
	return r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "ERR max number of clients")
}
