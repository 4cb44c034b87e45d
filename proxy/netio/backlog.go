package netio

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// writeAll is Write for a caller that waits for the peer.
func (s *Socket) writeAll(p []byte) (int, error) {
	n, err := s.write(p, s.onWrite)
	for s.waitsOn(err) {
		var more int
		more, err = s.write(p[n:], s.onWrite)
		n += more
	}
	s.disarm()
	return n, err
}

// waitsOn reports whether a write that has failed with err is to go on, because WriteTimeout was over but the peer has sent
// something since the write began to wait. WriteTimeout then begins anew.
func (s *Socket) waitsOn(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !s.armed || s.writeUntil.Load() != 0 || s.reads.Load() == s.armedAt {
		return false
	}
	s.arm()
	return true
}

// tryWrite is the part of writeAll that raw.Write calls whenever the kernel may take more. It returns false if it must be
// called again: then the write timeout runs.
func (s *Socket) tryWrite(fd uintptr) (done bool) {
	if s.writing, s.writeErr = writeSome(fd, s.writing); errors.Is(s.writeErr, errKernelFull) {
		s.arm()
		return false
	}
	return true
}

// arm sets the deadline of a write that waits for the peer. It is called again whenever the kernel has taken a part.
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
	s.armedAt = s.reads.Load()
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

// backlog holds the bytes that the kernel did not take of writes that must not wait: those of a lane's reader, which has
// other clients to serve, and those that crypto/tls makes while it reads (alerts, answers to KeyUpdate), under a lock that
// every write needs. A goroutine writes it out. Calls of Socket.Write never overlap, since crypto/tls holds that lock.
type backlog struct {
	pending atomic.Bool // see Pending; changes only under mu

	mu      sync.Mutex
	changed sync.Cond
	// guarded by mu
	page *Page
	r, w int   // page[r:w] is still to be written
	err  error // if it is set, nothing is written any more
}

const (
	// maxSmallWrite is the length up to which a write never waits: no record of crypto/tls's own is longer.
	maxSmallWrite = 96
	// MaxWriteNow is how many bytes, before encryption, a caller that must not wait may write at once: the page of the backlog
	// holds them and some records of crypto/tls's own.
	MaxWriteNow = 8 << 10
)

var errBacklogFull = errors.New("the client takes no answers to what it asks of TLS")

// EnableBacklog makes writes non-blocking: bytes that the kernel refuses go to the backlog, which a background goroutine
// writes out. Only writes that are longer than crypto/tls's own records wait for the peer, and only after SetWait(true). The
// caller must not have written yet. failed is called with an error after which nothing is written any more, maybe more than
// once, by whichever goroutine meets it.
func (s *Socket) EnableBacklog(failed func(error)) {
	s.backlog, s.writeFailed = new(backlog), failed
	s.backlog.changed.L = &s.backlog.mu
}

// SetWait decides whether writes that are longer than crypto/tls's own records wait for the peer from now on. The goroutine
// that makes these writes calls it. MaxWriteNow bounds what it may write without waiting.
func (s *Socket) SetWait(wait bool) { s.mayWait = wait }

// Pending reports whether the backlog is not empty, or a write has failed. A caller that must not wait should then leave its
// write to a goroutine that may. hot
func (s *Socket) Pending() bool { return s.backlog.pending.Load() }

// Backlog returns how many bytes are in the backlog.
func (s *Socket) Backlog() int {
	l := s.backlog
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w - l.r
}

// afterBacklog is the part of Write that takes place while the backlog is not empty, or after a write has failed. kept
// reports whether p is in the backlog. If it is not, and there is no error, the backlog has become empty and the caller must
// write p.
func (s *Socket) afterBacklog(p []byte, wait bool) (kept bool, err error) {
	if wait {
		return false, s.Flush()
	}
	return s.keep(p)
}

// beginBacklog puts rest, which the kernel did not take, into the empty backlog and starts the goroutine that writes it out.
func (s *Socket) beginBacklog(rest []byte) error {
	l := s.backlog
	l.mu.Lock()
	l.page, l.r, l.w = s.account.Page(), 0, 0
	l.pending.Store(true)
	l.mu.Unlock()
	_, err := s.keep(rest)
	go s.writeBacklog() // ends with what is left, or with the socket
	return err
}

// keep appends p to the backlog. kept is false if the backlog is empty: then p was not taken, and the caller must write it. A
// backlog without room for p is an error, after which nothing is written any more.
func (s *Socket) keep(p []byte) (kept bool, err error) {
	l := s.backlog
	l.mu.Lock()
	if l.page != nil && l.err == nil {
		if l.w+len(p) > len(l.page) {
			l.r, l.w = 0, copy(l.page[:], l.page[l.r:l.w])
		}
		if l.w+len(p) > len(l.page) {
			l.err = errBacklogFull
		} else {
			l.w += copy(l.page[l.w:], p)
		}
	}
	kept, err = l.page != nil, l.err
	l.mu.Unlock()
	if err != nil {
		s.writeFailed(err)
	}
	return kept, err
}

// writeBacklog is the goroutine that writes the backlog out. If a write fails, it calls failed, since no caller of Write may
// be there to get the error.
func (s *Socket) writeBacklog() {
	l := s.backlog
	finished, again := false, true
	var err error
	for again {
		err = s.raw.Write(func(fd uintptr) (done bool) {
			done, finished = s.tryFlush(fd)
			return done
		})
		if finished {
			return
		}
		l.mu.Lock()
		again = l.err == nil && s.waitsOn(err)
		l.mu.Unlock()
	}
	l.mu.Lock()
	s.disarm()
	if l.err == nil {
		l.err = err
	}
	err = l.err
	l.mu.Unlock()
	s.writeFailed(err)
	l.mu.Lock()
	s.flushedLocked()
	l.mu.Unlock()
}

// flushedLocked marks the backlog as empty and wakes those that wait for that. The caller must hold backlog.mu.
func (s *Socket) flushedLocked() {
	l := s.backlog
	s.account.FreePage(l.page)
	l.page, l.r, l.w = nil, 0, 0
	l.pending.Store(l.err != nil) // after an error it stays set: no write may go on
	l.changed.Broadcast()
}

// tryFlush is the part of writeBacklog that raw.Write calls whenever the kernel may take more. done is false if it must be
// called again. finished means that the backlog is empty; from then on other goroutines may write.
func (s *Socket) tryFlush(fd uintptr) (done, finished bool) {
	l := s.backlog
	l.mu.Lock()
	defer l.mu.Unlock()
	rest, err := writeSome(fd, l.page[l.r:l.w])
	l.r = l.w - len(rest)
	if errors.Is(err, errKernelFull) {
		s.arm()
		return l.err != nil, false
	}
	if l.err == nil {
		l.err = err
	}
	if l.err != nil {
		return true, false
	}
	s.disarm()
	s.flushedLocked()
	return true, true
}

// Flush waits until the backlog is empty. It returns the error after which nothing is written any more, if there was one.
func (s *Socket) Flush() error {
	l := s.backlog
	if !l.pending.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.page != nil {
		l.changed.Wait()
	}
	return l.err
}

// FlushWithin waits until the backlog is empty, at most for d; after that its writes fail. The caller must not write any
// more.
func (s *Socket) FlushWithin(d time.Duration) {
	l := s.backlog
	until := time.Now().Add(d)
	l.mu.Lock()
	s.writeUntil.Store(until.UnixNano())
	if l.page != nil {
		s.Conn.SetWriteDeadline(until)
	}
	l.mu.Unlock()
	_ = s.Flush()
}

// SetWriteDeadline is called by crypto/tls before and after its last alert. After EnableBacklog it does nothing, since that
// deadline must not end the backlog.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.backlog != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
