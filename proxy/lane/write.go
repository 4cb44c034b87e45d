package lane

import (
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"dragontls/proxy/netio"
)

// writeFailedLocked stops writing to the lane. The lane's reader delivers what the backend still sends, for Config.Stuck at
// most, and ends the lane. If the write timed out, the connection is closed at once.
func (l *Lane) writeFailedLocked(err error) {
	if l.state == closed {
		return
	}
	l.state = failed
	if errors.Is(err, os.ErrDeadlineExceeded) {
		l.up.Close()
		return
	}
	l.up.Socket.SetReadDeadline(time.Now().Add(l.set.all.c.Stuck))
}

// write is the lane's writer goroutine. Woken with the token, it writes until nothing waits, and then gives the token back.
// It ends after the lane's reader.
func (l *Lane) write() {
	defer l.set.all.c.Running.Done()
	defer l.leave()
	defer func() {
		if v := recover(); v != nil {
			l.set.all.c.Panicked(v)
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
const maxKept = MaxBytes

// keepLocked keeps the buffer of a finished write for the next one. It drops a buffer that is smaller than the spare one or
// above maxKept and, while memory is scarce, one above a chunk. hot
func (l *Lane) keepLocked(o output) {
	l.writing -= o.held()
	o = o.release(l.Account().Buffers())
	if n := o.held(); n >= l.spare.held() && n <= maxKept && l.state != closed && !(n > netio.ChunkSize && l.Account().Scarce()) {
		l.spare = o
	}
	l.countLocked()
}

// shed drops the buffers of an idle lane, and its ring if that has grown. The sweeper calls it.
func (l *Lane) shed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idleLocked() && l.out.empty() {
		l.out, l.spare = output{}, output{}
		if l.slots.Cap() > fewSlots {
			l.slots.Drop()
		}
		l.countLocked()
	}
}

const (
	// kept is how much of a lane's buffers and slots counts as kept for its next writes. Only more than that shows that commands
	// wait.
	kept = 512 << 10
	// slotCost is counted for a slot.
	slotCost = 64
	// fewSlots is the number of slots for which an idle lane keeps room.
	fewSlots = 64
)

// countLocked counts the memory of the lane's buffers and slots: up to kept as kept, and the rest as held, which only
// commands that wait for the backend explain. hot
func (l *Lane) countLocked() {
	n := int64(l.out.held()+l.spare.held()+l.writing) + int64(l.slots.Cap())*slotCost
	if n == l.counted {
		return
	}
	if more := min(n, kept) - min(l.counted, kept); more != 0 {
		l.Account().Keep(more)
	}
	if more := max(n, kept) - max(l.counted, kept); more != 0 {
		l.Account().Hold(more)
	}
	l.counted = n
}

// leave closes the lane's account after the lane's reader has ended. The lane's writer calls it last.
func (l *Lane) leave() {
	<-l.closed
	l.mu.Lock()
	l.writing = 0 // it is not 0 if a write panicked
	l.countLocked()
	l.mu.Unlock()
	l.set.all.c.CloseAccount(l.Account())
}

// writeBatch writes everything that waits and returns true. If nothing waits, or the lane has failed, it gives the token back
// and returns false.
func (l *Lane) writeBatch() bool {
	l.mu.Lock()
	o := l.out
	if o.empty() || l.state >= failed {
		l.token = false
		over := l.overLocked()
		l.mu.Unlock()
		if over {
			l.up.Close()
		}
		return false
	}
	l.out, l.spare, l.writing = l.spare, output{}, l.writing+o.held()
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

// output is what a lane has still to write: copied bytes, and chunks that sessions handed over, in their order.
type output struct {
	copied []byte
	chunks []outChunk
}

// outChunk is written before output.copied[at:].
type outChunk struct {
	chunk *netio.Chunk
	b     []byte // the part of chunk to be written
	at    int
}

func (o *output) empty() bool { return len(o.copied) == 0 && len(o.chunks) == 0 }

// held returns how many bytes of memory o holds, unused ones included.
func (o *output) held() int { return cap(o.copied) + len(o.chunks)*netio.ChunkSize }

// take adds the bytes b of a batch after everything else. hot
func (o *output) take(from *Batch, b []byte) {
	if k := from.handOver(b); k != nil {
		o.chunks = append(o.chunks, outChunk{chunk: k, b: b, at: len(o.copied)})
		return
	}
	o.copied = append(o.copied, b...)
}

// putFirst adds b, the end of a batch, before everything else.
func (o *output) putFirst(from *Batch, b []byte) {
	if k := from.handOver(b); k != nil {
		o.chunks = slices.Insert(o.chunks, 0, outChunk{chunk: k, b: b})
		return
	}
	o.copied = slices.Insert(o.copied, 0, b...)
	for i := range o.chunks {
		o.chunks[i].at += len(b)
	}
}

// writeTo writes everything.
func (o *output) writeTo(w io.Writer) error {
	from := 0
	for _, k := range o.chunks {
		if err := writeSome(w, o.copied[from:k.at]); err != nil {
			return err
		}
		if err := writeSome(w, k.b); err != nil {
			return err
		}
		from = k.at
	}
	return writeSome(w, o.copied[from:])
}

func writeSome(w io.Writer, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// release gives the chunks back to the pool and returns o emptied, for further use. The caller must be done with writing o.
func (o *output) release(b *netio.Buffers) output {
	for _, k := range o.chunks {
		b.PutChunk(k.chunk)
	}
	clear(o.chunks)
	return output{o.copied[:0], o.chunks[:0]}
}
