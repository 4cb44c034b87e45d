package netio

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is one TCP or Unix connection. A read that waits holds no memory: its buffer is taken when bytes are there. A write
// that waits for the peer fails after WriteTimeout, which starts again with every byte that the peer takes. At any time one
// goroutine may read and one may write.
type Socket struct {
	net.Conn
	// WriteTimeout is how long a write waits for a peer that takes no byte; with 0 it waits for ever. It must not change during
	// a write.
	WriteTimeout time.Duration
	// Handshake is the TLS handshake on this socket until that is finished, or nil. The goroutine that runs the handshake sets
	// it.
	Handshake Handshake
	// BeforeWait, unless it is nil, is called by the goroutine that reads before each read that asks the kernel, while Handshake
	// is nil. The read returns its error. Only the goroutine that reads sets it.
	BeforeWait func() error

	raw     syscall.RawConn
	account *Account // of the session or lane that makes it hold bytes

	socketRead
	socketWrite

	backlog     *backlog // see EnableBacklog; while it is nil each write waits
	mayWait     bool     // see SetWait
	writeFailed func(error)
	writeUntil  atomic.Int64 // deadline of all writes in unix nanoseconds, see FlushWithin; 0: none

	stuck     atomic.Bool // a write waits for the peer
	watchedAs int32       // the descriptor by which a Watcher knows it; guarded by Watcher.mu
}

// socketRead belongs to the goroutine that reads.
type socketRead struct {
	page *Page // holds the bytes that were read and that Read has not yet returned, page[r:w]
	r, w int

	input tlsInput // follows the bytes that Read has returned

	direct    []byte // the caller's buffer, into which the read under way goes instead of a page; or nil
	wantChunk bool   // reads go into a chunk, for Receive
	pooled    *Chunk // the chunk with Receive's bytes
	readN     int
	readErr   error
	onRead    func(fd uintptr) bool
}

// socketWrite belongs to the goroutine that writes.
type socketWrite struct {
	writing    []byte // the rest of the write under way
	writeErr   error
	armed      bool // the write under way waits for the peer, see arm
	onWrite    func(fd uintptr) bool
	onWriteNow func(fd uintptr) bool
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

// Account returns the account that counts what the socket holds.
func (s *Socket) Account() *Account { return s.account }

// Read reads for crypto/tls, which asks for a few hundred bytes at a time. A page between it and the kernel saves system
// calls.
func (s *Socket) Read(p []byte) (int, error) {
	if s.page == nil {
		if err := s.wait(p); err != nil {
			return 0, err
		}
		if s.page == nil {
			s.input.took(p[:s.readN])
			return s.readN, nil
		}
	}
	n := copy(p, s.page[s.r:s.w])
	s.input.took(p[:n])
	s.r += n
	if s.r == s.w {
		s.account.FreePage(s.page)
		s.page = nil
	}
	return n, nil
}

// Unread returns the bytes that were read from the kernel and that Read has not yet returned. They are valid until the next
// Read. The goroutine that reads calls it.
func (s *Socket) Unread() []byte {
	if s.page == nil {
		return nil
	}
	return s.page[s.r:s.w]
}

// Receive waits for bytes and returns what the kernel has, at most a chunk. The bytes are in the returned chunk, which the
// account counts until the caller passes it to FreeChunk. A socket is read by Receive or by Read, not by both.
func (s *Socket) Receive() ([]byte, *Chunk, error) {
	s.wantChunk = true
	err := s.wait(nil)
	c := s.pooled
	s.pooled = nil
	if c == nil {
		return nil, nil, err
	}
	return c[:s.readN], c, err
}

// wait waits for bytes of the kernel. They go into a chunk for Receive, into p if that has room for a page, or else into a
// page.
func (s *Socket) wait(p []byte) error {
	if err := s.beforeWait(); err != nil {
		return err
	}
	if len(p) >= PageSize {
		s.direct = p
	}
	s.readN, s.readErr = 0, nil
	err := s.raw.Read(s.onRead)
	s.direct = nil
	if err == nil {
		err = s.readErr
	}
	if s.Handshake != nil {
		err = cmp.Or(err, s.Handshake.AfterWait(s.readN))
	}
	return err
}

func (s *Socket) beforeWait() error {
	switch {
	case s.Handshake != nil:
		return s.Handshake.BeforeWait()
	case s.BeforeWait != nil:
		return s.BeforeWait()
	}
	return nil
}

// tryRead is the part of wait that raw.Read calls whenever bytes may be there. It returns false if there are none yet. The
// buffer is counted only once it holds bytes, since every read that waits asks the kernel in vain first. hot
func (s *Socket) tryRead(fd uintptr) bool {
	b := s.account.buffers
	var room []byte
	var c *Chunk
	var p *Page
	switch {
	case s.wantChunk:
		c = b.GetChunk()
		room = c[:]
	case s.direct != nil:
		room = s.direct
	default:
		p = b.getPage()
		room = p[:]
	}
	if s.Handshake != nil {
		room = room[:min(len(room), s.Handshake.Room())]
	}
	n, err := readFD(int(fd), room)
	if n <= 0 {
		if c != nil {
			b.PutChunk(c)
		}
		if p != nil {
			b.putPage(p)
		}
		if err == syscall.EAGAIN {
			return false
		}
		s.readErr = io.EOF
		if err != nil {
			s.readErr = os.NewSyscallError("read", err)
		}
		return true
	}
	s.readN = n
	switch {
	case c != nil:
		s.account.Hold(ChunkSize)
		s.pooled = c
	case p != nil:
		s.account.Hold(PageSize)
		s.page, s.r, s.w = p, 0, n
	}
	return true
}

// Write sends all of p. It fails with os.ErrDeadlineExceeded if the peer takes no byte for WriteTimeout. After EnableBacklog
// it does not always wait for the peer, see there.
func (s *Socket) Write(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case s.backlog != nil:
		return s.writeOrKeep(p)
	case s.Handshake != nil:
		s.Handshake.Answering()
	}
	return s.writeAll(p)
}

func (s *Socket) writeAll(p []byte) (int, error) {
	n, err := s.write(p, s.onWrite)
	s.disarm()
	return n, err
}

// WriteNow sends as much of p as the kernel takes at once, and returns how much that was. Only the goroutine that may call
// Write may call it, and after EnableBacklog only Write itself does.
func (s *Socket) WriteNow(p []byte) (n int, err error) { return s.write(p, s.onWriteNow) }

func (s *Socket) write(p []byte, try func(fd uintptr) bool) (n int, err error) {
	s.writing, s.writeErr = p, nil
	err = s.raw.Write(try)
	n = len(p) - len(s.writing)
	s.writing = nil
	if err == nil {
		err = s.writeErr
	}
	return n, err
}

func (s *Socket) tryWriteNow(fd uintptr) bool {
	var err error
	if s.writing, err = writeSome(fd, s.writing); err != syscall.EAGAIN {
		s.writeErr = os.NewSyscallError("write", err)
	}
	return true
}

func (s *Socket) tryWrite(fd uintptr) (done bool) {
	s.writing, done, s.writeErr = s.push(fd, s.writing)
	return done
}

// push writes until the kernel takes no more. done is false if the kernel may take the rest later: then the write timeout
// runs.
func (s *Socket) push(fd uintptr, p []byte) (rest []byte, done bool, err error) {
	if rest, err = writeSome(fd, p); err == syscall.EAGAIN {
		s.arm()
		return rest, false, nil
	}
	return rest, true, os.NewSyscallError("write", err)
}

// writeSome writes until the kernel takes no more. If there is a rest, err says why: EAGAIN if the kernel may take it later.
func writeSome(fd uintptr, p []byte) (rest []byte, err error) {
	for len(p) > 0 {
		n, err := writeFD(int(fd), p)
		if n <= 0 {
			return p, err
		}
		p = p[n:]
	}
	return p, nil
}

// arm sets the deadline of a write that waits for the peer. push calls it again whenever the kernel has taken a part.
func (s *Socket) arm() {
	if s.Handshake != nil {
		s.Handshake.Stalled() // it has a deadline of its own
		return
	}
	if !s.armed {
		s.armed = true
		s.account.Hold(recordCost) // the buffer with the record that crypto/tls writes
	}
	s.stuck.Store(true)
	switch until := s.writeUntil.Load(); {
	case until != 0:
		s.Conn.SetWriteDeadline(time.Unix(0, until))
	case s.WriteTimeout > 0:
		s.Conn.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
	}
}

// disarm ends what arm began.
func (s *Socket) disarm() {
	if s.armed {
		s.armed = false
		s.account.Hold(-recordCost)
		s.stuck.Store(false)
		s.Conn.SetWriteDeadline(time.Time{})
	}
}

// Stuck reports whether a write waits for the peer.
func (s *Socket) Stuck() bool { return s.stuck.Load() }

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
