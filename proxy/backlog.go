package proxy

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/netio"
)

// backlog is what a client's kernel did not take of writes that must not wait: those of a lane's reader, which has others
// to serve, and those that crypto/tls makes while it reads (alerts, answers to KeyUpdate), under a lock that each write
// needs. A goroutine writes it out. All calls of socket.Write exclude each other: crypto/tls holds that lock.
type backlog struct {
	pending atomic.Bool // changes under mu

	mu      sync.Mutex
	changed sync.Cond
	// guarded by mu
	page *netio.Page
	r, w int   // page[r:w] is left
	err  error // of the goroutine: nothing is written any more
}

const (
	// maxSmallWrite: a record of crypto/tls's own is never longer.
	maxSmallWrite = 96
	// maxWriteNow is what may be written in one go by who must not wait: a page holds it, and some such records.
	maxWriteNow = 8 << 10
)

var errBacklogFull = errors.New("the client takes no answers to what it asks of TLS")

// neverWait has small writes leave to a goroutine what the kernel does not take, and big ones where mayWait is false.
// failed is told of an error behind which nothing is written any more, maybe more than once. Nobody writes yet.
func (s *socket) neverWait(failed func(error)) {
	s.backlog, s.writeFailed = new(backlog), failed
	s.backlog.changed.L = &s.backlog.mu
}

// writeClient is Write behind neverWait. hot
func (s *socket) writeClient(p []byte) (n int, err error) {
	l := s.backlog
	wait := len(p) > maxSmallWrite && s.mayWait
	switch {
	case !l.pending.Load():
	case wait:
		if err := s.flushed(); err != nil {
			return 0, err
		}
	default:
		if kept, err := s.keep(p); kept || err != nil {
			return len(p), err
		}
	}
	if wait {
		return s.writeAll(p)
	}
	if n, err = s.writeNow(p); err != nil || n == len(p) {
		return n, err
	}
	l.mu.Lock()
	l.page, l.r, l.w = s.account.Page(), 0, 0
	l.pending.Store(true)
	l.mu.Unlock()
	_, err = s.keep(p[n:])
	go s.flush()
	return len(p), err
}

// keep appends to what is left. kept is false where nothing is left any more.
func (s *socket) keep(p []byte) (kept bool, err error) {
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

// flush writes the backlog out. Where it cannot, nobody may be there to learn of it: the session ends.
func (s *socket) flush() {
	l := s.backlog
	finished := false
	err := s.raw.Write(func(fd uintptr) (done bool) {
		done, finished = s.tryFlush(fd)
		return done
	})
	if finished {
		return
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

func (s *socket) flushedLocked() {
	l := s.backlog
	s.account.FreePage(l.page)
	l.page, l.r, l.w = nil, 0, 0
	l.pending.Store(l.err != nil) // behind an error nobody goes on
	l.changed.Broadcast()
}

// tryFlush is the kernel's half of flush: done is false where it takes nothing now. Once finished, others write.
func (s *socket) tryFlush(fd uintptr) (done, finished bool) {
	l := s.backlog
	l.mu.Lock()
	defer l.mu.Unlock()
	rest, done, err := s.push(fd, l.page[l.r:l.w])
	l.r = l.w - len(rest)
	if l.err == nil {
		l.err = err
	}
	switch {
	case l.err != nil:
		return true, false
	case done:
		s.disarm()
		s.flushedLocked()
	}
	return done, done
}

// flushed waits until nothing is left.
func (s *socket) flushed() error {
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

// flushedWithin waits until nothing is left, at most d: the session ends.
func (s *socket) flushedWithin(d time.Duration) {
	l := s.backlog
	until := time.Now().Add(d)
	l.mu.Lock()
	s.writeUntil.Store(until.UnixNano())
	if l.page != nil {
		s.Conn.SetWriteDeadline(until)
	}
	l.mu.Unlock()
	_ = s.flushed()
}

// SetWriteDeadline is called by crypto/tls around its last alert: behind neverWait it is not for the backlog.
func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.backlog != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
