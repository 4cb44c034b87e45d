package netio

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
)

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

// Read reads for crypto/tls, which asks for a few hundred bytes at a time. A page between it and the kernel saves system
// calls.
func (s *Socket) Read(p []byte) (int, error) {
	n, err := s.ReadBare(p)
	s.input.took(p[:n])
	return n, err
}

// ReadBare is Read for bytes that come before TLS begins.
func (s *Socket) ReadBare(p []byte) (int, error) {
	if s.page == nil {
		if err := s.wait(p); err != nil {
			return 0, err
		}
		if s.page == nil {
			return s.readN, nil
		}
	}
	n := copy(p, s.page[s.r:s.w])
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
	var err error
	switch {
	case s.Handshake != nil:
		err = s.Handshake.BeforeWait()
	case s.BeforeWait != nil:
		err = s.BeforeWait()
	}
	if err != nil {
		return err
	}
	if len(p) >= PageSize {
		s.direct = p
	}
	s.readN, s.readErr = 0, nil
	err = s.raw.Read(s.onRead)
	s.direct = nil
	if err == nil {
		err = s.readErr
	}
	if s.Handshake != nil {
		err = cmp.Or(err, s.Handshake.AfterWait(s.readN))
	}
	return err
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
	n, errno := readFD(fd, room)
	for errno == syscall.EINTR {
		n, errno = readFD(fd, room)
	}
	if n <= 0 {
		if c != nil {
			b.PutChunk(c)
		}
		if p != nil {
			b.putPage(p)
		}
		switch errno {
		case 0:
			s.readErr = io.EOF
		case syscall.EAGAIN:
			return false
		default:
			s.readErr = os.NewSyscallError("read", errno)
		}
		return true
	}
	s.readN = n
	s.reads.Add(1)
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

// tlsInput follows the bytes of a client that go into crypto/tls, to know how much memory they take there. crypto/tls makes
// room for a whole record when it has seen the header, keeps that room as long as the connection lives, and keeps the parts
// of a handshake message until it is whole. The goroutine that reads the socket owns it.
type tlsInput struct {
	header  [recordHeader]byte
	n       int32 // bytes of the header that have come
	size    int32 // bytes of the record after its header
	left    int32 // bytes of the record that are still to come
	longest int32 // bytes of the longest record so far
	whole   int64 // bytes of whole records since crypto/tls last returned a byte

	held, kept int64 // what CountTLS has counted
}

const (
	recordHeader = 5 // type, version, length (RFC 8446, 5.1)
	// recordRoom is what crypto/tls adds to the length of a record when it makes room for it.
	recordRoom = 512
	// smallRecord is the length up to which the room for records is not counted: every handshake has records of that size.
	smallRecord = 4 << 10
	// recordCost is the size of the buffer from which crypto/tls writes a record.
	recordCost = PageSize + recordRoom
)

// took notes that crypto/tls took b. hot
func (t *tlsInput) took(b []byte) {
	for len(b) > 0 {
		if t.left > 0 {
			n := min(int(t.left), len(b))
			t.left -= int32(n)
			b = b[n:]
			if t.left == 0 {
				t.n = 0
				t.whole += int64(t.size)
			}
			continue
		}
		n := copy(t.header[t.n:], b)
		t.n += int32(n)
		b = b[n:]
		if t.n < recordHeader {
			return
		}
		// crypto/tls refuses a record that is longer than allowed before it makes room for it: hence the limit on longest.
		t.size = int32(binary.BigEndian.Uint16(t.header[3:]))
		t.left = t.size
		t.longest = max(t.longest, min(t.size, PageSize+2048))
		if t.left == 0 {
			t.n = 0
		}
	}
}

// socketWrite belongs to the goroutine that writes.
type socketWrite struct {
	writing    []byte // the rest of the write under way
	writeErr   error
	armed      bool   // the write under way waits for the peer, see arm
	armedAt    uint64 // what reads was when arm was last called
	onWrite    func(fd uintptr) bool
	onWriteNow func(fd uintptr) bool
}

// Write sends all of p. It fails with os.ErrDeadlineExceeded if the peer takes no byte for WriteTimeout. After EnableBacklog
// it waits for the peer only if p is longer than crypto/tls's own records, and only after SetWait(true): otherwise the bytes
// that the kernel refuses go to the backlog. hot
func (s *Socket) Write(p []byte) (n int, err error) {
	wait := len(p) > maxSmallWrite && s.mayWait
	switch {
	case len(p) == 0:
		return 0, nil
	case s.backlog == nil:
		if s.Handshake != nil {
			s.Handshake.Answering()
		}
		return s.writeAll(p)
	case s.backlog.pending.Load():
		if kept, err := s.afterBacklog(p, wait); kept || err != nil {
			return len(p), err
		}
	}
	if wait {
		return s.writeAll(p)
	}
	if n, err = s.WriteNow(p); err != nil || n == len(p) {
		return n, err
	}
	return len(p), s.beginBacklog(p[n:])
}

// WriteNow sends as much of p as the kernel takes at once, and returns how much that was. Only the goroutine that may call
// Write may call it, and after EnableBacklog only Write itself does. hot
func (s *Socket) WriteNow(p []byte) (n int, err error) { return s.write(p, s.onWriteNow) }

func (s *Socket) write(p []byte, try func(fd uintptr) bool) (n int, err error) {
	s.writing, s.writeErr = p, nil
	err = s.raw.Write(try)
	n = len(p) - len(s.writing)
	s.writing = nil
	if err == nil && !errors.Is(s.writeErr, errKernelFull) {
		err = s.writeErr
	}
	return n, err
}

// tryWriteNow is the part of WriteNow that raw.Write calls once. hot
func (s *Socket) tryWriteNow(fd uintptr) bool {
	s.writing, s.writeErr = writeSome(fd, s.writing)
	return true
}

// errKernelFull is why writeSome leaves a rest that the kernel may take later.
const errKernelFull = syscall.EAGAIN

// writeSome writes until the kernel takes no more. If there is a rest, err says why. hot
func writeSome(fd uintptr, p []byte) (rest []byte, err error) {
	for len(p) > 0 {
		n, errno := writeFD(fd, p)
		switch errno {
		case 0:
			p = p[n:]
		case syscall.EINTR:
		case errKernelFull:
			return p, errno
		default:
			return p, os.NewSyscallError("write", errno)
		}
	}
	return p, nil
}
