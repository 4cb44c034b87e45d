package proxy

import (
	"errors"
	"io"
	"net"
	"os"

	"dragontls/proxy/netio"
)

// input is what the session's reader has read from the client and not framed yet.
type input struct {
	buf   []byte // small, page or chunk
	r, w  int    // buf[r:w] is not framed yet
	page  *netio.Page
	chunk *netio.Chunk
	small [512]byte // the buffer of an idle session
}

// read is the session's reader goroutine: it frames the client's commands, judges them, and submits them to the backend in
// batches. It ends when the session rests or has ended; Server.Close waits for it.
func (s *session) read() {
	if !s.converse() {
		s.finish()
	}
}

// converse reads and serves the client until the session rests or ends. It returns true if the session rests, and false if
// it has ended; then finish is left to do.
func (s *session) converse() (rests bool) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v)
		}
	}()
	for !s.ended() && !s.client.ending {
		if s.account().Pressed() {
			s.pause()
		}
		if s.fill() && s.server.rest(s) {
			return true
		}
		if !s.consume() || s.queue.full && !s.awaitSlots() {
			break
		}
		if s.client.eof {
			_ = s.flush() // clientEOF finds its error again
			s.abandonLane()
			s.clientEOF()
			break
		}
	}
	s.linger()
	return false
}

// fill reads once from the client into the buffer. If it has to wait, the batch is submitted first (beforeWait). It reports
// whether the read was interrupted and brought nothing. If so, crypto/tls has no decrypted byte left, and the session may
// rest.
func (s *session) fill() (interrupted bool) {
	c := &s.client
	s.makeRoom()
	n, err := c.conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		c.sock.Decrypted()
		s.holds.Store(holdsCommands)
		if now := s.server.settings.Load(); now != c.settings {
			s.follow(now)
		}
		s.stripe.bytesIn.Add(uint64(n))
		c.bytesIn += uint64(n)
		s.lastActive.Store(s.server.now())
	}
	switch {
	case err == nil:
	case errors.Is(err, netio.ErrWouldWait):
		if n == 0 { // otherwise crypto/tls returned data and then looked for the rest of an alert
			s.setBuf(nil, nil)
		}
	case c.flushErr != nil || errors.Is(err, os.ErrDeadlineExceeded):
		s.woken() // the reader was interrupted, or the session has ended
		return n == 0
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		c.eof = true
		s.abandonLane()
		if s.uncounting() && c.holding {
			// After CLIENT REPLY SKIP, the reply for which the reader waits may never come.
			s.limitBackend(s.server.c.lingerTimeout)
		} else {
			s.limitBackend(s.server.eofTimeout())
		}
	default:
		c.failed = err
		s.kill(closeClientError)
	}
	return false
}

// beforeWait runs before each read that asks the kernel and so may wait for the client. It submits the batch, ends a loss
// that is over (recover), and notes what the reader holds. netio.ErrWouldWait makes the reader give back a big, empty buffer
// first.
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
		return netio.ErrWouldWait
	}
	return nil
}

// makeRoom makes room in the buffer for the next read. The buffer is small while little comes, a page after a read has
// filled the small one, and a chunk if a command does not fit into a page.
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

// setBuf moves the unframed bytes to another buffer and gives the old one back. The new one is k, or else p, or else small.
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

// consume frames and dispatches what is in the buffer. It returns false if the session takes no more from this client. hot
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
