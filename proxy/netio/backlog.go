package netio

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// backlog is what a client's kernel did not take of writes that must not wait: those of a lane's reader, which has others
// to serve, and those that crypto/tls makes while it reads (alerts, answers to KeyUpdate), under a lock that each write
// needs. A goroutine writes it out. All calls of Socket.Write exclude each other: crypto/tls holds that lock.
type backlog struct {
	pending atomic.Bool // changes under mu

	mu      sync.Mutex
	changed sync.Cond
	// guarded by mu
	page *Page
	r, w int   // page[r:w] is left
	err  error // of the goroutine: nothing is written any more
}

const (
	// maxSmallWrite: a record of crypto/tls's own is never longer.
	maxSmallWrite = 96
	// MaxWriteNow is how many bytes, before encryption, a caller that must not wait may write at once: a page holds them, and some
	// records of crypto/tls's own.
	MaxWriteNow = 8 << 10
)

var errBacklogFull = errors.New("the client takes no answers to what it asks of TLS")

// EnableBacklog makes writes non-blocking: what the kernel does not take goes to the backlog, which a goroutine writes out. Only writes
// that are longer than crypto/tls's own records wait for the peer, and only after SetWait(true). failed is told of an error after
// which nothing is written any more, maybe more than once, by whichever goroutine meets it. Nobody writes yet.
func (s *Socket) EnableBacklog(failed func(error)) {
	s.backlog, s.writeFailed = new(backlog), failed
	s.backlog.changed.L = &s.backlog.mu
}

// SetWait decides whether writes that are longer than crypto/tls's own records wait for the peer from now on. The goroutine that
// makes these writes calls it. MaxWriteNow bounds what it may write without waiting.
func (s *Socket) SetWait(wait bool) { s.mayWait = wait }

// Pending reports whether something is left that the kernel has not taken, or a write has failed: a write that must not wait is
// better left to somebody who may. hot
func (s *Socket) Pending() bool { return s.backlog.pending.Load() }

// Backlog returns how many bytes of writes that did not wait the kernel has not taken yet.
func (s *Socket) Backlog() int {
	l := s.backlog
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w - l.r
}

// writeOrKeep is Write after EnableBacklog. hot
func (s *Socket) writeOrKeep(p []byte) (n int, err error) {
	l := s.backlog
	wait := len(p) > maxSmallWrite && s.mayWait
	switch {
	case !l.pending.Load():
	case wait:
		if err := s.Flush(); err != nil {
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
	if n, err = s.WriteNow(p); err != nil || n == len(p) {
		return n, err
	}
	l.mu.Lock()
	l.page, l.r, l.w = s.account.Page(), 0, 0
	l.pending.Store(true)
	l.mu.Unlock()
	_, err = s.keep(p[n:])
	go s.writeBacklog() // ends with what is left, or with the socket
	return len(p), err
}

// keep appends to what is left. kept is false where nothing is left any more.
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

// writeBacklog writes the backlog out. Where it cannot, nobody may be there to learn of it: failed is told.
func (s *Socket) writeBacklog() {
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

func (s *Socket) flushedLocked() {
	l := s.backlog
	s.account.FreePage(l.page)
	l.page, l.r, l.w = nil, 0, 0
	l.pending.Store(l.err != nil) // behind an error nobody goes on
	l.changed.Broadcast()
}

// tryFlush is the kernel's half of writeBacklog: done is false where it takes nothing now. Once finished, others write.
func (s *Socket) tryFlush(fd uintptr) (done, finished bool) {
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

// Flush waits until nothing is left that the kernel has not taken, and returns the error after which nothing is written any more.
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

// FlushWithin waits until nothing is left, or until d has passed: then all writing ends. No write may follow.
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

// SetWriteDeadline is called by crypto/tls around its last alert. After EnableBacklog it does nothing: it is not for the backlog.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.backlog != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}
