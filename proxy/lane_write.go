package proxy

import (
	"errors"
	"os"
	"runtime"
	"time"

	"dragontls/proxy/netio"
)

// writeOne writes what the caller gave to an idle lane; it has the token. A session whose goroutine panics here takes
// the lane with it. What the backend does not take at once is left to the writer. hot
func (l *lane) writeOne(s *session, b []byte) {
	defer l.failOnPanic()
	n, err := l.up.Socket.WriteNow(b)
	l.handOn(s, b[n:], err)
}

// failOnPanic closes the lane where a goroutine panics that has the token; the panic goes on.
func (l *lane) failOnPanic() {
	if v := recover(); v != nil {
		l.poison()
		panic(v)
	}
}

// handOn gives the token to the writer where something waits, or back. The rest of the session's batch goes first. hot
func (l *lane) handOn(s *session, rest []byte, err error) {
	l.mu.Lock()
	if len(rest) > 0 && err == nil && l.state != laneClosed {
		l.out.putFirst(s, rest)
		l.countLocked()
	}
	if err != nil {
		l.writeFailedLocked(err)
	}
	waits := !l.out.empty() && l.state < laneFailed
	l.token = waits
	done := l.state == laneRetired && l.idleLocked()
	l.mu.Unlock()
	if waits {
		l.wakeWriter()
	}
	if done {
		l.up.Close()
	}
}

// wakeWriter never waits: whoever has the token is the only one who may call it, and the writer takes it.
func (l *lane) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
		panic("the token of a lane was handed on twice")
	}
}

// writeFailedLocked leaves the end to the reader, which takes what the backend still has to say.
func (l *lane) writeFailedLocked(err error) {
	if l.state == laneClosed {
		return
	}
	l.state = laneFailed
	if errors.Is(err, os.ErrDeadlineExceeded) {
		l.up.Close()
		return
	}
	l.up.Socket.SetReadDeadline(time.Now().Add(l.set.server.c.stuckTimeout))
}

// write is the writer goroutine: woken with the token, it writes all that is there until nothing is. It ends with the
// lane's reader.
func (l *lane) write() {
	defer l.set.server.running.Done()
	defer l.leave()
	defer func() {
		if v := recover(); v != nil {
			l.set.server.lanePanic(v)
			l.poison()
		}
	}()
	for {
		select {
		case <-l.wake:
		case <-l.closed:
			return
		}
		// Sessions that are about to run add to what is written.
		runtime.Gosched()
		for l.writeBatch() {
		}
	}
}

// maxKept bounds the buffer that a lane keeps for the next write while it is in use: growing another one of this size costs
// more than what fills it.
const maxKept = laneBytes

// keepLocked keeps the buffer of what was written for what comes, unless memory is scarce. hot
func (l *lane) keepLocked(o laneOut) {
	l.writing -= o.held()
	o = o.release(l.account().Buffers())
	if n := o.held(); n >= l.spare.held() && n <= maxKept && l.state != laneClosed && !(n > netio.ChunkSize && l.account().Scarce()) {
		l.spare = o
	}
	l.countLocked()
}

// shed gives back what a lane without work keeps. The sweeper calls it.
func (l *lane) shed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idleLocked() && l.out.empty() {
		l.out, l.spare = laneOut{}, laneOut{}
		if l.slots.cap() > fewSlots {
			l.slots.drop()
		}
		l.countLocked()
	}
}

// countLocked counts what the lane holds: commands that wait for the backend, and slots. hot
func (l *lane) countLocked() {
	n := int64(l.out.held()+l.spare.held()+l.writing) + int64(l.slots.cap())*laneSlotCost
	if n == l.counted {
		return
	}
	if kept := min(n, laneKept) - min(l.counted, laneKept); kept != 0 {
		l.account().Keep(kept)
	}
	if held := max(n, laneKept) - max(l.counted, laneKept); held != 0 {
		l.account().Hold(held)
	}
	l.counted = n
}

// leave closes the account, when nobody counts on it any more.
func (l *lane) leave() {
	<-l.closed
	l.mu.Lock()
	l.writing = 0 // of a writer that panicked
	l.countLocked()
	l.mu.Unlock()
	l.set.server.closeAccount(l.account())
}

// account is the lane's.
func (l *lane) account() *netio.Account { return l.up.Socket.Account() }

// writeBatch writes what waits. false: nothing did, and the token is given back.
func (l *lane) writeBatch() bool {
	l.mu.Lock()
	o := l.out
	if o.empty() || l.state >= laneFailed {
		l.token = false
		done := l.state == laneRetired && l.idleLocked()
		l.mu.Unlock()
		if done {
			l.up.Close()
		}
		return false
	}
	l.out, l.spare, l.writing = l.spare, laneOut{}, l.writing+o.held()
	l.passed = l.given
	l.mu.Unlock()
	err := o.writeTo(l.up.Stream)
	l.mu.Lock()
	l.keepLocked(o)
	if err != nil {
		l.writeFailedLocked(err)
	}
	l.mu.Unlock()
	return true
}
