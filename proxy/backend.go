package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"dragontls/proxy/resp"
)

// BackendConfig says how to reach the store. Its functions are called at every dial.
type BackendConfig struct {
	// Target is "tcp" and host:port, or "unix" and a path.
	Target func() (network, address string, err error)
	TLS    func() *tls.Config // nil, or nil from it: in clear
	// Credentials are what the proxy authenticates with; nil, or no password: clients authenticate themselves.
	Credentials    func() (user, password string, err error)
	ConnectTimeout time.Duration // for one dial, with authentication
	MaxConnections int           // 0: no limit
}

var (
	errBackendAuth = errors.New("the backend refused the proxy's credentials")
	errBackendOpen = errors.New("the backend serves connections that did not authenticate: a client could drop the user it is given")
	errBackendFull = errors.New("BACKEND_MAX_CONNECTIONS is reached")
	// errBackendBusy: not a word about the credentials was said.
	errBackendBusy  = errors.New("the backend takes no connection now (loading, or its maxclients is reached)")
	errDialPanicked = errors.New("panic in a dial")
)

// backend dials the store. After a failure dials go one at a time, at growing distances. Safe for concurrent use.
type backend struct {
	c            BackendConfig
	buffers      *buffers
	stats        *backendStats
	keepAlive    time.Duration
	writeTimeout time.Duration
	room         chan struct{} // a place for each open connection; nil: no limit

	gate chan struct{} // the turn to dial while the backend fails
	mu   sync.Mutex
	// guarded by mu
	pause time.Duration // distance of the next dial after a failure; 0: the last dial worked
	next  time.Time
}

const (
	firstPause = 20 * time.Millisecond
	maxPause   = time.Second
)

func newBackend(c BackendConfig, b *buffers, s *backendStats, keepAlive, writeTimeout time.Duration) *backend {
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = 2 * time.Second
	}
	be := &backend{c: c, buffers: b, stats: s, keepAlive: keepAlive, gate: make(chan struct{}, 1)}
	if writeTimeout > 0 {
		// A backend that stops for a while costs waiting, no session.
		be.writeTimeout = writeTimeout + 30*time.Second
	}
	if c.MaxConnections > 0 {
		be.room = make(chan struct{}, c.MaxConnections)
	}
	return be
}

// dial opens a connection that belongs to one session and authenticates it. authenticated: dragontls did so.
func (b *backend) dial(ctx context.Context) (c *backendConn, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.room != nil {
		select {
		case b.room <- struct{}{}:
		case <-ctx.Done():
			b.stats.errors.add("max_connections")
			return nil, errBackendFull
		}
		defer func() {
			if c == nil {
				<-b.room
			}
		}()
	}
	done, err := b.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	err = errDialPanicked
	defer func() { done(err) }()
	c, err = b.connect(ctx)
	if errors.Is(ctx.Err(), context.Canceled) && err != nil {
		return nil, context.Canceled // whoever wanted it does not any more: that says nothing of the backend
	}
	if err != nil {
		b.stats.errors.add(backendReason(err))
		return nil, err
	}
	c.release = func() {
		b.stats.connections.Add(-1)
		if b.room != nil {
			<-b.room
		}
	}
	b.stats.connections.Add(1)
	return c, nil
}

// takeTurn lets everybody dial at once while dials work; after a failure one at a time.
func (b *backend) takeTurn(ctx context.Context) (done func(error), err error) {
	b.mu.Lock()
	failing := b.pause > 0
	b.mu.Unlock()
	if !failing {
		return b.outcome, nil
	}
	select {
	case b.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	wait := time.Until(b.next)
	if b.pause == 0 {
		wait = 0
	}
	b.mu.Unlock()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			<-b.gate
			return nil, ctx.Err()
		}
	}
	return func(err error) { b.outcome(err); <-b.gate }, nil
}

func (b *backend) outcome(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.pause = 0
		return
	}
	b.pause = min(maxPause, max(firstPause, 2*b.pause))
	b.next = time.Now().Add(b.pause)
}

func backendReason(err error) string {
	var ne net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, errBackendAuth):
		return "auth"
	case errors.Is(err, errBackendOpen):
		return "unauthenticated_access"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	case errors.Is(err, errSettings):
		return "settings"
	case errors.Is(err, errBackendBusy):
		return "busy"
	case errors.Is(err, errBackendTLS), errors.As(err, &op) && op.Op == "remote error":
		return "tls"
	}
	return "dial"
}

var errBackendTLS = errors.New("TLS with the backend")

var errSettings = errors.New("read the backend's address and credentials")

func (b *backend) connect(ctx context.Context) (*backendConn, error) {
	b.stats.dials.Add(1)
	ctx, cancel := context.WithTimeout(ctx, b.c.ConnectTimeout)
	defer cancel()
	var user, password string
	if b.c.Credentials != nil {
		var err error
		if user, password, err = b.c.Credentials(); err != nil {
			return nil, fmt.Errorf("%w: %w", errSettings, err)
		}
	}
	d := net.Dialer{KeepAlive: -1}
	network, address, err := b.c.Target()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSettings, err)
	}
	raw, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tune(raw, b.keepAlive, b.writeTimeout)
	sock, err := newSocket(raw, b.buffers, b.writeTimeout)
	if err != nil {
		raw.Close()
		return nil, err
	}
	c := &backendConn{sock: sock, conn: sock, buffers: b.buffers}
	deadline, _ := ctx.Deadline()
	raw.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err = b.prepare(ctx, c, address, user, password)
	if !stop() {
		err = ctx.Err() // and the socket is closed, whatever else it led to
	}
	if err != nil {
		raw.Close()
		sock.release()
		return nil, err
	}
	raw.SetReadDeadline(time.Time{})
	return c, nil
}

func (b *backend) prepare(ctx context.Context, c *backendConn, address, user, password string) error {
	var conf *tls.Config
	if b.c.TLS != nil {
		conf = b.c.TLS()
	}
	if conf != nil {
		if conf.ServerName == "" {
			host, _, _ := net.SplitHostPort(address)
			conf = conf.Clone()
			conf.ServerName = host
		}
		t := tls.Client(c.sock, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("%w: %w", errBackendTLS, err)
		}
		c.conn, c.tls = t, t
	}
	if password == "" {
		return nil
	}
	c.user, c.password = user, password
	return c.authenticate(true)
}

// backendConn is one connection to the store. Its owner reads in one goroutine; writes wait for one another.
type backendConn struct {
	sock    *socket
	conn    net.Conn // sock, or the TLS connection over it
	tls     *tls.Conn
	buffers *buffers
	release func()
	once    sync.Once
	writing sync.Mutex

	user, password string // what dragontls authenticated with; no password: it did not
	small          []byte // of a TLS connection
	full           bool
}

// authenticated says that this connection acts as a user whom dragontls chose.
func (c *backendConn) authenticated() bool { return c.password != "" }

// receive returns bytes that live until free is called with the rest of what it returned.
func (c *backendConn) receive() ([]byte, *chunk, error) {
	if c.tls == nil {
		return c.sock.receive()
	}
	// crypto/tls wants room before it waits: little of it, unless the last read filled that.
	if !c.full {
		if c.small == nil {
			c.small = make([]byte, 512)
		}
		n, err := c.tls.Read(c.small)
		c.full = n == len(c.small)
		return c.small[:n], nil, err
	}
	k := c.buffers.chunk()
	n, err := c.tls.Read(k[:])
	c.full = n == pageSize
	return k[:n], k, err
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

// drop closes the connection and gives back what was read ahead; for the goroutine that reads.
func (c *backendConn) drop() {
	c.close()
	c.sock.release()
}

// authenticate sends AUTH and waits for its +OK. It is AUTH, since MONITOR shows what HELLO .. AUTH says. With probe
// a PING goes before it where the user is not default, and must be refused: a backend that serves connections
// without AUTH would let a client drop the user it was given.
func (c *backendConn) authenticate(probe bool) error {
	var out []byte
	var want []func(*resp.Replies) error
	if probe && c.user != "" && c.user != "default" {
		out = resp.AppendCommand(out, "PING")
		want = append(want, isNoAuth)
	}
	if c.user == "" {
		out = resp.AppendCommand(out, "AUTH", c.password)
	} else {
		out = resp.AppendCommand(out, "AUTH", c.user, c.password)
	}
	want = append(want, isOK)
	if _, err := c.write(out); err != nil {
		return err
	}
	return c.expect(want)
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

// isBusy recognises what a backend says that looks at no credentials yet.
func isBusy(r *resp.Replies) bool {
	line := string(r.Line())
	return r.Kind() == '-' && (strings.HasPrefix(line, "LOADING") || strings.HasPrefix(line, "ERR max number of clients"))
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
				err = errBackendAuth // a reply nobody asked for
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
