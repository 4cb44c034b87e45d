package proxy

import (
	"errors"
	"os"
	"runtime"
	"time"

	"dragontls/proxy/netio"
)

// writeOne writes a batch straight from the session's reader, which has the token, and gives the token away. What the kernel
// does not take at once is left to the lane's writer. A panic poisons the lane. hot
func (l *lane) writeOne(s *session, b []byte) {
	defer l.failOnPanic()
	n, err := l.up.Socket.WriteNow(b)
	l.handOn(s, b[n:], err)
}

// failOnPanic is deferred by a goroutine that has the token. After a panic it poisons the lane and lets the panic continue.
func (l *lane) failOnPanic() {
	if v := recover(); v != nil {
		l.poison()
		panic(v)
	}
}

// handOn ends writeOne: it puts the unwritten rest of the session's batch before everything else that waits, and gives the
// token to the lane's writer if anything waits, or back to the lane. hot
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

// wakeWriter hands the token to the lane's writer. Only the holder of the token may call it, once, so it never waits.
func (l *lane) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
		panic("the token of a lane was handed on twice")
	}
}

// writeFailedLocked stops writing to the lane. The lane's reader delivers what the backend still sends, for stuckTimeout at
// most, and ends the lane. If the write timed out, the connection is closed at once.
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

// write is the lane's writer goroutine. Woken with the token, it writes until nothing waits, and then gives the token back.
// It ends after the lane's reader.
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
		// Sessions that are ready to run add their batches to this write.
		runtime.Gosched()
		for l.writeBatch() {
		}
	}
}

// maxKept bounds the buffer that a lane in use keeps for its next writes. Growing a new buffer of this size costs more than
// filling it.
const maxKept = laneBytes

// keepLocked keeps the buffer of a finished write for the next one. It drops a buffer that is smaller than the spare one or
// above maxKept and, while memory is scarce, one above a chunk. hot
func (l *lane) keepLocked(o laneOut) {
	l.writing -= o.held()
	o = o.release(l.account().Buffers())
	if n := o.held(); n >= l.spare.held() && n <= maxKept && l.state != laneClosed && !(n > netio.ChunkSize && l.account().Scarce()) {
		l.spare = o
	}
	l.countLocked()
}

// shed drops the buffers of an idle lane, and its ring if that has grown. The sweeper calls it.
func (l *lane) shed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idleLocked() && l.out.empty() {
		l.out, l.spare = laneOut{}, laneOut{}
		if l.slots.Cap() > fewSlots {
			l.slots.Drop()
		}
		l.countLocked()
	}
}

// countLocked counts the memory of the lane's buffers and slots: up to laneKept as kept, and the rest as held, which only
// commands that wait for the backend explain. hot
func (l *lane) countLocked() {
	n := int64(l.out.held()+l.spare.held()+l.writing) + int64(l.slots.Cap())*laneSlotCost
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

// leave closes the lane's account after the lane's reader has ended. The lane's writer calls it last.
func (l *lane) leave() {
	<-l.closed
	l.mu.Lock()
	l.writing = 0 // it is not 0 if a write panicked
	l.countLocked()
	l.mu.Unlock()
	l.set.server.closeAccount(l.account())
}

// account counts what the lane makes the proxy hold. It is that of its socket too.
func (l *lane) account() *netio.Account { return l.up.Socket.Account() }

// writeBatch writes everything that waits and returns true. If nothing waits, or the lane has failed, it gives the token back
// and returns false.
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
