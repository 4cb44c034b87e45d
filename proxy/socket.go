package proxy

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"dragontls/proxy/netio"
)

// socket is one TCP or Unix connection. A read that waits holds no memory: the buffer is taken when bytes are
// there. A write that the peer does not take gets writeTimeout anew for every byte that it does take.
// One goroutine reads and one writes at a time.
type socket struct {
	net.Conn
	raw          syscall.RawConn
	account      *netio.Account // of whoever makes it hold bytes
	writeTimeout time.Duration  // 0: none

	// beforeWait runs in the reader's goroutine before each read that asks the kernel, afterWait when it has answered.
	// Their errors become the read's.
	beforeWait func() error
	afterWait  func(n int) error
	handshake  *handshake // until it is finished

	page *netio.Page // bytes that the kernel gave and Read's caller has not taken
	r, w int

	input tlsInput // what Read's caller has taken

	direct  []byte       // where the read in progress goes instead of a page
	pooled  *netio.Chunk // where receive's bytes went
	readN   int
	readErr error
	onRead  func(fd uintptr) bool

	writing    []byte
	writeErr   error
	armed      bool // a write deadline is set
	onWrite    func(fd uintptr) bool
	onWriteNow func(fd uintptr) bool

	backlog     *backlog // see neverWait; nil: each write waits
	mayWait     bool     // a write by who has the session's turn
	writeFailed func(error)
	writeUntil  atomic.Int64 // unix nanoseconds: the end of all writing; 0: none

	wantChunk bool
	stuck     atomic.Bool // a write waits for the peer
}

var errNotASocket = errors.New("not a TCP or Unix connection")

func newSocket(c net.Conn, a *netio.Account, writeTimeout time.Duration) (*socket, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, errNotASocket
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: c, raw: raw, account: a, writeTimeout: writeTimeout}
	s.onRead, s.onWrite, s.onWriteNow = s.tryRead, s.tryWrite, s.tryWriteNow
	return s, nil
}

// Read is called by crypto/tls with a few hundred bytes of room at a time; a page under it saves system calls.
func (s *socket) Read(p []byte) (int, error) {
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

// receive returns what the kernel has, at most a chunk. The bytes live until done is called with the chunk.
func (s *socket) receive() ([]byte, *netio.Chunk, error) {
	s.wantChunk = true
	err := s.wait(nil)
	c := s.pooled
	s.pooled = nil
	if c == nil {
		return nil, nil, err
	}
	return c[:s.readN], c, err
}

func (s *socket) wait(p []byte) error {
	if s.beforeWait != nil {
		if err := s.beforeWait(); err != nil {
			return err
		}
	}
	if len(p) >= netio.PageSize {
		s.direct = p
	}
	s.readN, s.readErr = 0, nil
	err := s.raw.Read(s.onRead)
	s.direct = nil
	if err == nil {
		err = s.readErr
	}
	if s.afterWait != nil {
		err = cmp.Or(err, s.afterWait(s.readN))
	}
	return err
}

// tryRead is the kernel's half of wait: false means nothing is there yet. The room is counted once it holds bytes: every
// read that waits asks the kernel in vain first. hot
func (s *socket) tryRead(fd uintptr) bool {
	b := s.account.Buffers()
	var room []byte
	var c *netio.Chunk
	var p *netio.Page
	switch {
	case s.wantChunk:
		c = b.GetChunk()
		room = c[:]
	case s.direct != nil:
		room = s.direct
	default:
		p = b.GetPage()
		room = p[:]
	}
	if s.handshake != nil {
		room = room[:min(len(room), s.handshake.allowance.room())]
	}
	n, err := readFD(int(fd), room)
	if n <= 0 {
		if c != nil {
			b.PutChunk(c)
		}
		if p != nil {
			b.PutPage(p)
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
		s.account.Hold(netio.ChunkSize)
		s.pooled = c
	case p != nil:
		s.account.Hold(netio.PageSize)
		s.page, s.r, s.w = p, 0, n
	}
	return true
}

// Write sends all of p. It fails with os.ErrDeadlineExceeded when the peer takes no byte for writeTimeout.
func (s *socket) Write(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case s.backlog != nil:
		return s.writeClient(p)
	case s.handshake != nil:
		s.handshake.allowance.answered()
	}
	return s.writeAll(p)
}

func (s *socket) writeAll(p []byte) (int, error) {
	s.writing, s.writeErr = p, nil
	err := s.raw.Write(s.onWrite)
	n := len(p) - len(s.writing)
	s.writing = nil
	if err == nil {
		err = s.writeErr
	}
	s.disarm()
	return n, err
}

// writeNow sends as much of p as the peer takes at once. It may be called by whoever could call Write.
func (s *socket) writeNow(p []byte) (n int, err error) {
	s.writing, s.writeErr = p, nil
	err = s.raw.Write(s.onWriteNow)
	n = len(p) - len(s.writing)
	s.writing = nil
	if err == nil {
		err = s.writeErr
	}
	return n, err
}

func (s *socket) tryWriteNow(fd uintptr) bool {
	for len(s.writing) > 0 {
		n, err := writeFD(int(fd), s.writing)
		if n <= 0 {
			if err != syscall.EAGAIN {
				s.writeErr = os.NewSyscallError("write", err)
			}
			break
		}
		s.writing = s.writing[n:]
	}
	return true
}

func (s *socket) tryWrite(fd uintptr) (done bool) {
	s.writing, done, s.writeErr = s.push(fd, s.writing)
	return done
}

// push writes until the kernel takes no more. done is false where it may later: the clock runs then.
func (s *socket) push(fd uintptr, p []byte) (rest []byte, done bool, err error) {
	for len(p) > 0 {
		n, err := writeFD(int(fd), p)
		if n > 0 {
			p = p[n:]
			continue
		}
		if err == syscall.EAGAIN {
			s.arm()
			return p, false, nil
		}
		return p, true, os.NewSyscallError("write", err)
	}
	return p, true, nil
}

// arm starts the clock of a write that the peer does not take; each byte taken starts it anew.
func (s *socket) arm() {
	if s.handshake != nil {
		s.handshake.stopWork() // it waits, and has a deadline of its own
		return
	}
	if !s.armed {
		s.armed = true
		s.account.Hold(recordCost) // from which crypto/tls writes
	}
	s.stuck.Store(true)
	switch until := s.writeUntil.Load(); {
	case until != 0:
		s.Conn.SetWriteDeadline(time.Unix(0, until))
	case s.writeTimeout > 0:
		s.Conn.SetWriteDeadline(time.Now().Add(s.writeTimeout))
	}
}

func (s *socket) disarm() {
	if s.armed {
		s.armed = false
		s.account.Hold(-recordCost)
		s.stuck.Store(false)
		s.Conn.SetWriteDeadline(time.Time{})
	}
}

// release gives back what Read had not handed out; for the end of the connection, by the reader.
func (s *socket) release() {
	if s.page != nil {
		s.account.FreePage(s.page)
		s.page = nil
	}
}

// closeWrite sends a FIN.
func (s *socket) closeWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// abort closes with a reset, so that the peer learns at once and the kernel keeps nothing.
func (s *socket) abort() {
	if c, ok := s.Conn.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	s.Conn.Close()
}
