package proxy

import (
	"errors"
	"io"
	"net"
	"os"

	"dragontls/proxy/netio"
)

// input is what was read of the client and is not framed yet.
type input struct {
	buf   []byte // small, page or chunk
	r, w  int    // buf[r:w] is there
	page  *netio.Page
	chunk *netio.Chunk
	small [512]byte // what an idle session keeps
}

// read is the reader goroutine: it frames the client's commands, judges them, and writes them to the backend in
// batches. It ends when the session does, for which the server waits, or when the session rests.
func (s *session) read() {
	if !s.converse() {
		s.finish()
	}
}

// converse reports whether the session rests; otherwise it has ended, or is about to.
func (s *session) converse() (rests bool) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	for !s.ended() {
		s.pause()
		if s.fill() && s.server.rest(s) {
			return true
		}
		if !s.consume() || !s.queueHasRoom() {
			break
		}
		if s.client.eof {
			s.clientEOF()
			break
		}
	}
	s.linger()
	return false
}

// pause waits while memory is scarce and the session holds some. A reader that has part of a command or of a record goes
// on: only the rest of it gives the memory back.
func (s *session) pause() {
	c := &s.client
	if !s.account().Pressed() || s.flush() != nil || c.r < c.w || c.streamed != nil || len(c.sock.Unread()) > 0 || c.sock.InRecord() {
		return
	}
	c.r, c.w = 0, 0
	s.setBuf(nil, nil)
	s.holds.Store(holdsNothing)
	s.waitForMemory()
}

// queueHasRoom waits until the backend has answered some of what the queue holds.
func (s *session) queueHasRoom() bool {
	q := &s.queue
	q.mu.Lock()
	full := q.slots.len() >= maxSlots
	q.mu.Unlock()
	// Written first: who waits here for hours holds no command back that was judged before.
	return !full || s.flush() == nil && s.hold(func() bool { return q.slots.len() < maxSlots })
}

// errWouldWait ends a read that would wait with a big, empty buffer. crypto/tls goes on behind a temporary error.
var errWouldWait net.Error = wouldWait{}

type wouldWait struct{}

func (wouldWait) Error() string { return "read would wait" }

func (wouldWait) Timeout() bool { return true }

func (wouldWait) Temporary() bool { return true }

// fill reads once into the buffer. The bytes gathered so far go to the backend before it waits (flush). It reports whether
// the read was interrupted: then crypto/tls needs more of the client before it has another byte of a command.
func (s *session) fill() (interrupted bool) {
	c := &s.client
	s.makeRoom()
	n, err := c.conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		c.sock.Decrypted()
		s.holds.Store(holdsCommands)
		s.stripe.bytesIn.Add(uint64(n))
		c.bytesIn += uint64(n)
		s.lastActive.Store(s.server.now())
	}
	switch {
	case err == nil:
	case errors.Is(err, errWouldWait):
		if n == 0 { // else crypto/tls looked for the rest of an alert behind the last bytes
			s.setBuf(nil, nil)
		}
	case c.flushErr != nil || errors.Is(err, os.ErrDeadlineExceeded):
		s.woken() // or the session has ended
		return n == 0
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		c.eof = true
		if s.uncounting() && c.holding {
			// What is awaited may never be answered (behind CLIENT REPLY SKIP).
			s.limitBackend(s.server.c.lingerTimeout)
		} else {
			s.limitBackend(s.server.c.eofTimeout)
		}
	default:
		c.failed = err
		s.kill(closeClientError)
	}
	return false
}

// beforeWait runs before a read that waits for the client: what was taken is passed on first.
func (s *session) beforeWait() error {
	if err := s.flush(); err != nil {
		return err
	}
	if s.client.recovering && !s.client.holding {
		s.recover()
	}
	s.client.sock.CountTLS()
	switch c := &s.client; {
	case c.holding:
	case c.r < c.w || c.streamed != nil:
		s.holds.Store(holdsPart)
	default:
		s.holds.Store(holdsNothing)
	}
	if c := &s.client; c.r == c.w && c.streamed == nil && (c.page != nil || c.chunk != nil) {
		return errWouldWait
	}
	return nil
}

// makeRoom gives the buffer at least some room: a small one while little comes, a page when reads fill that, a
// chunk for a command that a page cannot hold.
func (s *session) makeRoom() {
	c := &s.client
	full := c.w == len(c.buf)
	if c.r == c.w {
		c.r, c.w = 0, 0
		switch {
		case c.chunk != nil, c.page != nil && !full:
			s.setBuf(nil, nil)
		case c.page == nil && full:
			s.setBuf(s.account().Page(), nil)
		}
		return
	}
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if c.w < len(c.buf) {
		return
	}
	if c.page == nil && c.chunk == nil {
		s.setBuf(s.account().Page(), nil)
	} else if c.chunk == nil {
		s.setBuf(nil, s.account().Chunk())
	}
}

// setBuf moves the unread bytes to another buffer and gives the old one back.
func (s *session) setBuf(p *netio.Page, k *netio.Chunk) {
	c := &s.client
	to := c.small[:]
	if p != nil {
		to = p[:]
	}
	if k != nil {
		to = k[:]
	}
	c.w = copy(to, c.buf[c.r:c.w])
	c.r = 0
	c.buf = to
	if c.page != nil {
		s.account().FreePage(c.page)
	}
	if c.chunk != nil {
		s.account().FreeChunk(c.chunk)
	}
	c.page, c.chunk = p, k
}

func (s *session) dropBuffers() {
	c := &s.client
	c.r, c.w = 0, 0
	s.setBuf(nil, nil)
	s.freeOut()
}

// consume frames what is in the buffer. false: nothing more is to be taken from this client. hot
func (s *session) consume() bool {
	c := &s.client
	for c.r < c.w && !c.ending {
		if c.streamed != nil {
			if !s.stream() {
				break
			}
			continue
		}
		in := c.buf[c.r:c.w]
		n, complete, err := c.cmds.Next(in)
		if err != nil {
			if !s.protocolError(err) {
				return false
			}
			c.r += n
			continue
		}
		if complete {
			c.r += n
			if c.cmds.Args() > 0 && !s.dispatch(in[:n]) {
				return false
			}
			continue
		}
		if len(in) < maxHeld {
			break
		}
		if !s.dispatchBig(in) {
			return false
		}
	}
	return c.flushErr == nil && !c.ending
}
