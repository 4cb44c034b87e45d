package backend

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"dragontls/proxy/netio"
)

// Conn is one connection to the store, which Backend.Dial returns. One goroutine reads and may change the read deadline of Socket. The
// owner decides which goroutines may write; callers of Write wait for one another. Exported fields do not change after Dial and Life.Confirm.
type Conn struct {
	Socket *netio.Socket
	TLS    *tls.Conn     // over Socket; nil: in clear
	Stream net.Conn      // TLS, or else Socket: what is written to it goes to the backend
	Trip   time.Duration // that the introduction took: a round trip, where the backend has nothing else to do
	Bare   bool          // see Login.Bare
	Ready  bool          // the backend was asked whether it is loading its data, and is not, see WhileLoading
	Pushed bool          // a push came during the introduction or Life.Confirm, and was dropped: another client redirects its tracking here

	source      Source      // Socket, or what reads from TLS: what the backend sends comes from it
	user        string      // whom dragontls authenticated as
	credentials Credentials // nil: it did not
	proof       Proof       // what the backend has shown on it
	resp3       bool        // pushes may come
	life        *Life       // that has confirmed it; nil: none has
	moves       uint64      // how often the backend had moved when its address was chosen
	release     func()      // nil: there is nothing to give back
	once        sync.Once
	writing     sync.Mutex
}

// Carry sets what the connection runs over: a socket and, unless it is nil, TLS over that socket. Dial does this; a Conn that is
// made without Dial needs it before Receive.
func (c *Conn) Carry(sock *netio.Socket, over *tls.Conn) {
	c.Socket, c.Stream, c.source, c.TLS = sock, sock, sock, over
	if over != nil {
		c.Stream, c.source = over, &tlsSource{conn: over, socket: sock}
	}
}

// farTrips is how many of its own round trips a connection has for an answer in any case, before its silence means anything.
const farTrips = 8

// Patience returns how long the backend may take for an answer on this connection, where one that is near has the time d.
func (c *Conn) Patience(d time.Duration) time.Duration { return max(d, farTrips*c.Trip) }

// Authenticated reports whether this connection acts as a user whom dragontls chose.
func (c *Conn) Authenticated() bool { return c.credentials != nil }

// Transactions reports whether the backend has shown on this connection that it runs transactions, see Proof.
func (c *Conn) Transactions() bool { return c.proof == WithTransactions }

// DialledBefore reports whether the connection was dialled before the backend moved for the nth time.
func (c *Conn) DialledBefore(n uint64) bool { return c.moves < n }

// Receive reads once. The bytes live until Free is called with the chunk, which may be nil. They may come with an error. hot
func (c *Conn) Receive() ([]byte, *netio.Chunk, error) { return c.source.Receive() }

// Free gives back what Receive returned. hot
func (c *Conn) Free(k *netio.Chunk) {
	if k != nil {
		c.Socket.Account().FreeChunk(k)
	}
}

// Write sends b. The lock is for the AUTH after a refused RESET, see AuthenticateAgain: the goroutine that reads has seen the reply to a
// write of another one that may not have returned yet. hot
func (c *Conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.Stream.Write(b)
}

// CloseWrite tells the backend that nothing more is sent: by a FIN, and over TLS by a close_notify before it, since Dragonfly reacts only
// to the FIN.
func (c *Conn) CloseWrite() {
	if c.TLS != nil {
		c.TLS.CloseWrite()
	}
	c.Socket.CloseWrite()
}

// Close ends the connection; any number of times, from any goroutine.
func (c *Conn) Close() {
	c.once.Do(func() {
		c.Socket.Close()
		if c.release != nil {
			c.release()
		}
	})
}

// Drop closes the connection and gives back what was read ahead; for the goroutine that reads.
func (c *Conn) Drop() {
	c.Close()
	c.Socket.Release()
}

const (
	// ConnectionCost is what a connection makes the proxy hold at least, in bytes: cmd/dragonbench measures 26 KiB for a session with
	// a connection, and 22 without.
	ConnectionCost = 4 << 10
	// tlsConnectionCost is added where the backend speaks TLS: room for two records.
	tlsConnectionCost = 36 << 10
)
