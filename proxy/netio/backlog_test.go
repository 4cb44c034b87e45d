package netio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// deadlines records the deadlines that are set for writes.
type deadlines struct {
	net.Conn
	mu  sync.Mutex
	set []time.Time // guarded by mu
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	err := d.Conn.SetWriteDeadline(t)
	d.mu.Lock()
	if !t.IsZero() {
		d.set = append(d.set, t)
	}
	d.mu.Unlock()
	return err
}

func (d *deadlines) all() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]time.Time(nil), d.set...)
}

// backlogged is a client's socket with a backlog, and the peer that reads from it.
type backlogged struct {
	*Socket
	t      testing.TB
	peer   net.Conn
	gate   *proxytest.Gate // in front of a TCP socket
	next   byte
	sent   []byte // all bytes that Write has taken
	asked  *deadlines
	failed atomic.Pointer[error] // what the owner was told
}

func newBacklogged(t *testing.T, network string, writeTimeout time.Duration) *backlogged {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	conn, peer := pair(t, network, addr)
	b := &backlogged{t: t, peer: peer}
	if tcp, ok := conn.(*net.TCPConn); ok {
		b.gate = proxytest.NewGate(tcp, proxytest.FullSocket(t))
		conn = b.gate
	} else if err := conn.(*net.UnixConn).SetWriteBuffer(4 << 10); err != nil { // so small that the kernel takes less than a page at a time
		t.Fatal(err)
	}
	s, err := NewSocket(conn, NewBuffers(0).NewAccount(), writeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	b.Socket, b.asked = s, &deadlines{Conn: conn}
	s.Conn = b.asked
	s.EnableBacklog(func(err error) { b.failed.Store(&err) })
	t.Cleanup(func() {
		s.Abort()
		peer.Close()
		_ = s.Flush()
		if n := s.account.buffers.Lent(); n != 0 {
			t.Errorf("%d bytes still lent", n)
		}
	})
	return b
}

// write writes n bytes, each different from the one before it.
func (b *backlogged) write(n int, wait bool) error {
	p := make([]byte, n)
	for i := range p {
		p[i] = b.next
		b.next++
	}
	b.SetWait(wait)
	n, err := b.Write(p)
	b.sent = append(b.sent, p[:n]...)
	return err
}

// fill writes until the kernel takes no more, and a little more. A Unix socket takes as much as it ever will at once.
func (b *backlogged) fill() {
	b.t.Helper()
	if b.gate != nil {
		b.gate.Stop()
	}
	for b.Backlog() < PageSize/2 {
		if err := b.write(4000, false); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestBytesStayInOrderWhoeverWritesThem(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			b := newBacklogged(t, network, 0)
			var got []byte
			read := make(chan error, 1)
			go func() { // ends with the connection
				var err error
				got, err = io.ReadAll(b.peer)
				read <- err
			}()
			queued := 0
			for i := range 500 {
				n, wait := 1+i%maxSmallWrite, false
				switch {
				case i%7 == 0:
					n, wait = 1+i*31%(3*PageSize), true
					b.pass(true)
				case i%5 == 0 && !b.Pending(): // a caller that must not wait looks first
					n = MaxWriteNow
				}
				if err := b.write(n, wait); err != nil {
					t.Fatalf("write %d of %d bytes: %v", i, n, err)
				}
				if b.Pending() {
					queued++
				}
				if i%7 == 0 {
					b.pass(i%2 == 0)
				}
			}
			if queued == 0 && b.gate != nil {
				t.Error("nothing ever waited in the backlog")
			}
			b.pass(true)
			if err := b.Flush(); err != nil {
				t.Fatal(err)
			}
			if b.Pending() || b.Backlog() != 0 {
				t.Error("something is left")
			}
			b.closeWriteOf()
			if err := <-read; err != nil || !bytes.Equal(got, b.sent) {
				t.Errorf("%d bytes (%v), or others than the %d written", len(got), err, len(b.sent))
			}
		})
	}
}

// pass opens or shuts the gate, if there is one.
func (b *backlogged) pass(open bool) {
	switch {
	case b.gate == nil:
	case open:
		b.gate.Open()
	default:
		b.gate.Stop()
	}
}

// closeWriteOf sends a FIN from below the recorder.
func (b *backlogged) closeWriteOf() { b.asked.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// Writes have no time limit here: one that waited would never return.
func TestSmallWritesWaitForNobody(t *testing.T) {
	t.Parallel()
	for name, mayWait := range map[string]bool{"of who may wait": true, "of who may not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBacklogged(t, "tcp", 0)
			b.fill()
			var err error
			n := 0
			for ; err == nil; n++ {
				err = b.write(maxSmallWrite, mayWait)
			}
			if !errors.Is(err, errBacklogFull) {
				t.Errorf("the write behind the last is answered %v", err)
			}
			if most := PageSize / maxSmallWrite; n > most || n < most/8 {
				t.Errorf("%d small writes were taken", n-1)
			}
			if told := b.failed.Load(); told == nil || !errors.Is(*told, errBacklogFull) {
				t.Errorf("the owner was told %v", told)
			}
			if err := b.write(maxSmallWrite, mayWait); !errors.Is(err, errBacklogFull) {
				t.Errorf("the next is answered %v", err)
			}
		})
	}
}

func TestWhoTakesNothingEndsThoughItWaitsInTheBacklog(t *testing.T) {
	t.Parallel()
	b := newBacklogged(t, "tcp", time.Hour)
	b.fill()
	eventually(t, "it waits", func() bool { return b.gate.Waited() == 1 })
	b.gate.Pass(2 * time.Hour)
	eventually(t, "the owner is told", func() bool { return b.failed.Load() != nil })
	if err := b.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it ends with %v", err)
	}
	if n := b.account.buffers.Lent(); n != 0 {
		t.Errorf("%d bytes still lent", n)
	}
	if b.Stuck() {
		t.Error("a write waits still")
	}
	for name, n := range map[string]int{"small": 1, "big": PageSize} {
		for _, wait := range []bool{false, true} {
			if err := b.write(n, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a %s write behind it is answered %v", name, err)
			}
		}
	}
	if err := b.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("and the next wait %v", err)
	}
}

// A Unix socket takes the backlog in several parts.
func TestWhatIsTakenStartsTheClockAnew(t *testing.T) {
	t.Parallel()
	b := newBacklogged(t, "unix", time.Hour)
	b.fill()
	for b.Backlog() < PageSize-2*maxSmallWrite {
		if err := b.write(maxSmallWrite, false); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the clock runs", func() bool { return len(b.asked.all()) > 0 })
	left, first := b.Backlog(), len(b.asked.all())
	if _, err := io.ReadFull(b.peer, make([]byte, len(b.sent)-left+1)); err != nil {
		t.Fatal(err)
	}
	// A byte of the backlog has been taken, and the rest waits.
	eventually(t, "the clock starts anew", func() bool {
		all := b.asked.all()
		return len(all) > first && all[len(all)-1].After(all[first-1])
	})
	if _, err := io.ReadFull(b.peer, make([]byte, left-1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no write waits", func() bool { return !b.Stuck() })
	if err := b.write(maxSmallWrite+1, true); err != nil {
		t.Errorf("a write behind it: %v", err)
	}
}

func TestWhoWaitsForTheBacklogWakesWhenTheSocketCloses(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(*backlogged) error{
		"Flush":       func(b *backlogged) error { return b.Flush() },
		"FlushWithin": func(b *backlogged) error { b.FlushWithin(time.Hour); return b.Flush() },
		"a big write": func(b *backlogged) error { return b.write(PageSize, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBacklogged(t, "tcp", 0)
			b.fill()
			done := make(chan error, 1)
			go func() { done <- wait(b) }() // ends with the socket
			b.Abort()
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("it wakes with %v", err)
			}
		})
	}
}

func TestLastWordsWaitNoLongerThanTheyMay(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]time.Duration{"without a limit before": 0, "with a longer one": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBacklogged(t, "tcp", before)
			b.fill()
			eventually(t, "it waits", func() bool { return b.gate.Waited() == 1 })
			set := len(b.asked.all())
			done := make(chan struct{})
			go func() { // ends with the wait
				b.FlushWithin(time.Hour)
				close(done)
			}()
			eventually(t, "its last time runs", func() bool { return len(b.asked.all()) > set })
			b.gate.Pass(2 * time.Hour)
			<-done
			if err := b.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) || b.account.buffers.Lent() != 0 {
				t.Errorf("it ends with %v, %d bytes are lent", err, b.account.buffers.Lent())
			}
			if told := b.failed.Load(); told == nil || !errors.Is(*told, os.ErrDeadlineExceeded) {
				t.Errorf("the owner was told %v", told)
			}
		})
	}
}

// crypto/tls sets a deadline before its last alert, and one that has passed after it.
func TestDeadlinesOfAlertsDoNotConcernTheBacklog(t *testing.T) {
	t.Parallel()
	b := newBacklogged(t, "tcp", 0)
	b.fill()
	if err := b.SetWriteDeadline(time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if all := b.asked.all(); len(all) != 0 {
		t.Errorf("deadlines %v", all)
	}
	b.gate.Open()
	if _, err := io.ReadFull(b.peer, make([]byte, len(b.sent))); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil || len(b.asked.all()) != 0 {
		t.Errorf("it ends with %v, deadlines %v", err, b.asked.all())
	}
}
