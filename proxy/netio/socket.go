package netio

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is one TCP or Unix connection. A read that waits holds no memory: its buffer is taken when bytes are there. A write
// that waits for the peer fails after WriteTimeout, which starts again with every byte that the peer takes. If the peer has
// sent something meanwhile, the write waits for WriteTimeout once more: a peer may send all that it has before it reads. At
// any time one goroutine may read and one may write.
type Socket struct {
	net.Conn
	// WriteTimeout is how long a write waits for a peer that neither takes nor sends a byte; with 0 it waits for ever. It must
	// not change during a write.
	WriteTimeout time.Duration
	// Handshake is the TLS handshake on this socket until that is finished, or nil. The goroutine that runs the handshake sets
	// it.
	Handshake Handshake
	// BeforeWait, unless it is nil, is called by the goroutine that reads before each read that asks the kernel, while Handshake
	// is nil. The read returns its error. Only the goroutine that reads sets it.
	BeforeWait func() error

	remote  *net.TCPAddr // see SetRemote
	raw     syscall.RawConn
	account *Account // of the session or lane that makes it hold bytes

	socketRead
	socketWrite

	backlog     *backlog // see EnableBacklog; while it is nil each write waits
	mayWait     bool     // see SetWait
	writeFailed func(error)
	writeUntil  atomic.Int64  // deadline of all writes in unix nanoseconds, see FlushWithin; 0: none
	reads       atomic.Uint64 // reads that have brought something

	stuck     atomic.Bool // a write waits for the peer
	watchedAs int32       // the descriptor by which a Watcher knows it; guarded by Watcher.mu
}

// Handshake is the handshake's side of its socket: the socket tells it of each read, write and wait, and asks it how much
// may be read. The socket calls its methods in the goroutine that runs the handshake.
type Handshake interface {
	// BeforeWait is called before each read that asks the kernel, and AfterWait after it with the number of bytes that it
	// brought. The read returns their errors.
	BeforeWait() error
	AfterWait(n int) error
	// Room returns how many bytes may be read at once.
	Room() int
	// Answering is called before each write.
	Answering()
	// Stalled is called when a write has to wait for the peer. The write then waits until the write deadline of the socket, not
	// for WriteTimeout.
	Stalled()
}

var errNotASocket = errors.New("not a TCP or Unix connection")

// NewSocket returns a socket over a connection, which must be a TCP or Unix connection of package net or wrap one. The
// account a counts what the socket holds. The caller must call Release once no goroutine reads the socket any more.
func NewSocket(c net.Conn, a *Account, writeTimeout time.Duration) (*Socket, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errNotASocket
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{Conn: c, WriteTimeout: writeTimeout, raw: raw, account: a}
	s.onRead, s.onWrite, s.onWriteNow = s.tryRead, s.tryWrite, s.tryWriteNow
	return s, nil
}

// SetRemote sets whom RemoteAddr names from now on: the client for which the peer, a load balancer, has opened the connection. It is
// called before other goroutines know the socket.
func (s *Socket) SetRemote(client *net.TCPAddr) { s.remote = client }

// RemoteAddr returns the address of the client: that of the peer, unless SetRemote was called.
func (s *Socket) RemoteAddr() net.Addr {
	if s.remote != nil {
		return s.remote
	}
	return s.Conn.RemoteAddr()
}

// Balancer returns the address of the peer if SetRemote was called, or nil.
func (s *Socket) Balancer() net.Addr {
	if s.remote == nil {
		return nil
	}
	return s.Conn.RemoteAddr()
}

// Account returns the account that counts what the socket holds.
func (s *Socket) Account() *Account { return s.account }

// Release gives back the page that Read has not emptied, and what CountTLS has counted as held. The goroutine that reads
// calls it at the end of the connection.
func (s *Socket) Release() {
	if s.page != nil {
		s.account.FreePage(s.page)
		s.page = nil
	}
	s.account.Hold(-s.input.held)
	s.input.held = 0
}

// CloseWrite sends a FIN.
func (s *Socket) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Abort closes the connection with a reset, so that the peer notices at once and the kernel keeps no unsent bytes. Any
// goroutine may call it.
func (s *Socket) Abort() {
	if c, ok := s.Conn.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	s.Conn.Close()
}
