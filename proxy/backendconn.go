package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

// backendConn is one connection to the store. Its owner reads in one goroutine; writes wait for one another.
type backendConn struct {
	sock    *netio.Socket
	conn    net.Conn // sock, or the TLS connection over it
	tls     *tls.Conn
	release func()
	once    sync.Once
	writing sync.Mutex

	user        string                                    // whom dragontls authenticated as
	credentials func() (user, password string, err error) // nil: it did not
	small       []byte                                    // of a TLS connection
	epoch       uint64
	trip        time.Duration // that its introduction took: a round trip, where the backend has nothing else to do
	lane        laneProof     // what it has shown
	pushed      bool          // a push came while it was introduced
	full        bool
}

// authenticated says that this connection acts as a user whom dragontls chose.
func (c *backendConn) authenticated() bool { return c.credentials != nil }

// receive returns bytes that live until free is called with the rest of what it returned.
func (c *backendConn) receive() ([]byte, *netio.Chunk, error) {
	if c.tls == nil {
		return c.sock.Receive()
	}
	// crypto/tls wants room before it waits: little of it, and more only for what is there already.
	if c.full {
		b := c.sock.Account().Buffers()
		k := b.GetChunk()
		c.sock.BeforeWait = func() error { return netio.ErrWouldWait }
		n, err := c.tls.Read(k[:])
		c.sock.BeforeWait = nil
		if errors.Is(err, netio.ErrWouldWait) && n > 0 {
			err = nil // crypto/tls looked for the rest of an alert behind the last bytes
		}
		if n > 0 {
			c.sock.Account().Hold(netio.ChunkSize) // from here on, as in Receive
			return k[:n], k, err
		}
		b.PutChunk(k)
		if !errors.Is(err, netio.ErrWouldWait) {
			return nil, nil, err
		}
	}
	if c.small == nil {
		c.small = make([]byte, 512)
	}
	n, err := c.tls.Read(c.small)
	c.full = n == len(c.small)
	return c.small[:n], nil, err
}

func (c *backendConn) free(k *netio.Chunk) {
	if k != nil {
		c.sock.Account().FreeChunk(k)
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
	c.sock.CloseWrite()
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
	if l.name != "" && !l.state.named {
		out = resp.AppendCommand(out, "CLIENT", "SETNAME", l.name)
		want = append(want, isOKOrError)
	}
	out, want = l.state.replay(out, want)
	x := expectation{replies: new(resp.Replies), want: want, drop: l.state.resp3}
	if l.lane != noLane {
		x.replies.Strict = true
		out = x.proveLane(out, l.lane)
		c.lane = l.lane
	}
	if len(x.want) == 0 {
		return nil
	}
	if _, err := c.write(out); err != nil {
		return err
	}
	err := x.receive(c)
	c.pushed = x.dropped > 0
	return err
}

// proveLane asks what shows that a connection may be shared: an empty transaction runs, and a random word returns.
func (x *expectation) proveLane(out []byte, l laneProof) []byte {
	if l == laneWithTransactions {
		out = resp.AppendCommand(resp.AppendCommand(out, "MULTI"), "EXEC")
		x.want = append(x.want, isMulti, isEmptyExec)
	}
	word := rand.Uint64()
	want := appendNonceReply(nil, word)
	x.want = append(x.want, func(r *resp.Replies) error {
		if !bytes.Equal(x.frames, want) {
			return laneError(r, errLaneUnproven)
		}
		return nil
	})
	return appendNonce(out, word)
}

var (
	errBackendState     = errors.New("the backend refused the database, protocol or name that a session had")
	errLaneTransactions = errors.New("the backend refused an empty transaction")
	errLaneUnproven     = errors.New("the backend did not answer as a connection that is to be shared must")
)

func isMulti(r *resp.Replies) error {
	if r.Kind() == '+' && string(r.Line()) == "OK" {
		return nil
	}
	return laneError(r, errLaneTransactions)
}

func isEmptyExec(r *resp.Replies) error {
	if r.Kind() == '*' && r.Len() == 0 {
		return nil
	}
	return laneError(r, errLaneTransactions)
}

func laneError(r *resp.Replies, err error) error {
	if isBusy(r) {
		return errBackendBusy
	}
	return err
}

// authenticateAgain sends AUTH as at the dial, with the password as it is now, and waits for its +OK. r goes on with the
// frames of the connection: pass gets the pushes among them, of which the last may be left open.
func (c *backendConn) authenticateAgain(r *resp.Replies, pass func([]byte) error) error {
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
	x := expectation{replies: r, want: []func(*resp.Replies) error{isOK}, pass: pass}
	return x.receive(c)
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
	x := expectation{replies: new(resp.Replies), want: want}
	return x.receive(c)
}

const maxNonceFrame = 64

// expectation is the replies that are waited for, in their order.
type expectation struct {
	replies *resp.Replies
	want    []func(*resp.Replies) error
	pass    func([]byte) error // takes pushes; nil: none may come, unless drop is set
	drop    bool               // pushes are dropped: another client redirects its CLIENT TRACKING here. With RESP3 only
	dropped int                // bytes of them
	frames  []byte             // the first bytes of the frame that is judged
}

// receive reads until every reply has come. With drop it also waits for the end of a push whose beginning came with the last
// of them: whoever reads this connection next begins with a frame.
func (x *expectation) receive(c *backendConn) error {
	for len(x.want) > 0 || x.drop && x.replies.Open() {
		b, k, err := c.receive()
		for len(b) > 0 && err == nil {
			var n int
			n, err = x.frame(b)
			b = b[n:]
		}
		c.free(k)
		if err != nil {
			return err
		}
	}
	return nil
}

// frame takes one frame of b, or as much of it as is there.
func (x *expectation) frame(b []byte) (n int, err error) {
	push := (x.pass != nil || x.drop) && (x.replies.Open() && x.replies.Kind() == '>' || !x.replies.Open() && b[0] == '>')
	if !push && len(x.want) == 0 {
		return 0, errBackendUnasked
	}
	if !x.replies.Open() {
		x.frames = x.frames[:0]
	}
	n, done, err := x.replies.Next(b)
	if len(x.frames) < maxNonceFrame {
		x.frames = append(x.frames, b[:min(n, maxNonceFrame)]...)
	}
	switch {
	case err != nil:
	case push && x.drop:
		if x.dropped += n; x.dropped > maxPush {
			err = errBackendUnasked
		}
	case push:
		err = x.pass(b[:n])
	case done:
		err = x.want[0](x.replies)
		x.want = x.want[1:]
	}
	return n, err
}

// drop closes the connection and gives back what was read ahead; for the goroutine that reads.
func (c *backendConn) drop() {
	c.close()
	c.sock.Release()
}

// isBusy recognises what a backend says that is loading, runs a long script, or has no place: nothing of what was asked.
func isBusy(r *resp.Replies) bool {
	if r.Kind() != '-' {
		return false
	}
	line := string(r.Line())
	return isFull(r) || strings.HasPrefix(line, "LOADING") || strings.HasPrefix(line, "BUSY ") || strings.HasPrefix(line, execRefused+"BUSY ")
}

// execRefused begins Redis' answer to an EXEC that it does not run now, whatever it says behind that (BUSY, OOM, READONLY,
// MISCONF, ...); it discards the transaction.
const execRefused = "EXECABORT Transaction discarded because of: "

// isFull recognises what a backend says before it closes a connection that is beyond its maxclients.
func isFull(r *resp.Replies) bool {
	return r.Kind() == '-' && strings.HasPrefix(string(r.Line()), "ERR max number of clients")
}
