package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/netio"
	"dragontls/proxy/proxytest"
)

// deadlines counts those that writes are given.
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

// backlogged is a client's socket. Whoever reads from the peer gets what was numbered.
type backlogged struct {
	*socket
	t      testing.TB
	peer   net.Conn
	gate   *proxytest.Gate // in front of a TCP socket
	next   byte
	sent   []byte // all that writes have taken
	asked  *deadlines
	failed atomic.Pointer[error] // what the owner was told
}

func newBacklogged(t *testing.T, network string, writeTimeout time.Duration) *backlogged {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := &backlogged{t: t, peer: peer}
	if tcp, ok := conn.(*net.TCPConn); ok {
		b.gate = proxytest.NewGate(tcp, proxytest.FullSocket(t))
		conn = b.gate
	} else if err := conn.(*net.UnixConn).SetWriteBuffer(4 << 10); err != nil { // lumps that are smaller than a page
		t.Fatal(err)
	}
	s, err := newSocket(conn, netio.NewBuffers(0).NewAccount(), writeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	b.socket, b.asked = s, &deadlines{Conn: conn}
	s.Conn = b.asked
	s.neverWait(func(err error) { b.failed.Store(&err) })
	t.Cleanup(func() {
		s.abort()
		peer.Close()
		_ = s.flushed()
		if n := s.account.Buffers().Lent(); n != 0 {
			t.Errorf("%d bytes still lent", n)
		}
	})
	return b
}

// write takes n bytes, none like the one before it.
func (b *backlogged) write(n int, wait bool) error {
	p := make([]byte, n)
	for i := range p {
		p[i] = b.next
		b.next++
	}
	b.mayWait = wait
	n, err := b.Write(p)
	b.sent = append(b.sent, p[:n]...)
	return err
}

// fill writes until the kernel takes no more, and some. That of a Unix socket takes as much as it ever will at once.
func (b *backlogged) fill() {
	b.t.Helper()
	if b.gate != nil {
		b.gate.Stop()
	}
	for b.backlog.left() < netio.PageSize/2 {
		if err := b.write(4000, false); err != nil {
			b.t.Fatal(err)
		}
	}
}

// left is what the kernel has not taken.
func (l *backlog) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w - l.r
}

// end is how much it was given since it was empty.
func (l *backlog) end() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w
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
					n, wait = 1+i*31%(3*netio.PageSize), true
					b.pass(true)
				case i%5 == 0 && !b.backlog.pending.Load(): // who must not wait looks first
					n = maxWriteNow
				}
				if err := b.write(n, wait); err != nil {
					t.Fatalf("write %d of %d bytes: %v", i, n, err)
				}
				if b.backlog.pending.Load() {
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
			if err := b.flushed(); err != nil {
				t.Fatal(err)
			}
			if b.backlog.pending.Load() || b.backlog.left() != 0 {
				t.Error("something is left")
			}
			b.closeWriteOf()
			if err := <-read; err != nil || !bytes.Equal(got, b.sent) {
				t.Errorf("%d bytes (%v), or others than the %d written", len(got), err, len(b.sent))
			}
		})
	}
}

// pass opens the gate, if there is one, or shuts it.
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

// There is no limit on the time of a write: one that waited would never return.
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
			if most := netio.PageSize / maxSmallWrite; n > most || n < most/8 {
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
	if err := b.flushed(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it ends with %v", err)
	}
	if n := b.account.Buffers().Lent(); n != 0 {
		t.Errorf("%d bytes still lent", n)
	}
	if b.stuck.Load() {
		t.Error("a write waits still")
	}
	for name, n := range map[string]int{"small": 1, "big": netio.PageSize} {
		for _, wait := range []bool{false, true} {
			if err := b.write(n, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a %s write behind it is answered %v", name, err)
			}
		}
	}
	if err := b.flushed(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("and the next wait %v", err)
	}
}

// A Unix socket takes what is left in some lumps.
func TestWhatIsTakenStartsTheClockAnew(t *testing.T) {
	t.Parallel()
	b := newBacklogged(t, "unix", time.Hour)
	b.fill()
	for b.backlog.left() < netio.PageSize-2*maxSmallWrite {
		if err := b.write(maxSmallWrite, false); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the clock runs", func() bool { return len(b.asked.all()) > 0 })
	left, first := b.backlog.left(), len(b.asked.all())
	if _, err := io.ReadFull(b.peer, make([]byte, len(b.sent)-left+1)); err != nil {
		t.Fatal(err)
	}
	// A byte of what was left has been taken, and the rest waits.
	eventually(t, "the clock starts anew", func() bool {
		all := b.asked.all()
		return len(all) > first && all[len(all)-1].After(all[first-1])
	})
	if _, err := io.ReadFull(b.peer, make([]byte, left-1)); err != nil {
		t.Fatal(err)
	}
	if err := b.flushed(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no write waits", func() bool { return !b.stuck.Load() })
	if err := b.write(maxSmallWrite+1, true); err != nil {
		t.Errorf("a write behind it: %v", err)
	}
}

func TestWhoWaitsForTheBacklogWakesWhenTheSocketCloses(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(*backlogged) error{
		"flushed":       func(b *backlogged) error { return b.flushed() },
		"flushedWithin": func(b *backlogged) error { b.flushedWithin(time.Hour); return b.flushed() },
		"a big write":   func(b *backlogged) error { return b.write(netio.PageSize, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBacklogged(t, "tcp", 0)
			b.fill()
			done := make(chan error, 1)
			go func() { done <- wait(b) }() // ends with the socket
			b.abort()
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
				b.flushedWithin(time.Hour)
				close(done)
			}()
			eventually(t, "its last time runs", func() bool { return len(b.asked.all()) > set })
			b.gate.Pass(2 * time.Hour)
			<-done
			if err := b.flushed(); !errors.Is(err, os.ErrDeadlineExceeded) || b.account.Buffers().Lent() != 0 {
				t.Errorf("it ends with %v, %d bytes are lent", err, b.account.Buffers().Lent())
			}
			if told := b.failed.Load(); told == nil || !errors.Is(*told, os.ErrDeadlineExceeded) {
				t.Errorf("the owner was told %v", told)
			}
		})
	}
}

// crypto/tls sets a deadline around its last alert, and one that has passed behind it.
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
	if err := b.flushed(); err != nil || len(b.asked.all()) != 0 {
		t.Errorf("it ends with %v, deadlines %v", err, b.asked.all())
	}
}

// slowReader is a client on a lane of one TLS version.
func (h *harness) slowReader(version uint16, keys io.Writer) (c *tls.Conn, raw net.Conn) {
	h.t.Helper()
	raw, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	conf := testPKI().clientConfig()
	conf.MaxVersion, conf.KeyLogWriter = version, keys
	c = tls.Client(raw, conf)
	if err := c.Handshake(); err != nil {
		h.t.Fatal(err)
	}
	return c, raw
}

func TestClientThatStopsReadingHoldsUpNobodyOnItsLane(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			value := bulk(strings.Repeat("x", 4000))
			b.on(func(_ *laneConn, args []string) (string, bool) { return value, args[len(args)-1] == "some" })
			h, gates := b.startGated(nil)
			c, _ := h.slowReader(version, nil)
			slow, other := newWire(t, c), h.dial()
			slow.get("0")
			other.get("1")
			gates.of(slow).Stop()
			const asked = 50
			for range asked {
				slow.send(cmd("GET", "some"))
				other.get("k") // which comes behind it
			}
			if b.lanes() != 1 || h.lane().stateNow() != laneOpen {
				t.Errorf("%d lanes, the first is in state %v", b.lanes(), h.lane().stateNow())
			}
			eventually(t, "what has come waits", h.sessionOf(slow).client.sock.stuck.Load)
			gates.of(slow).Open()
			slow.wantLong(strings.Repeat(value, asked))
			slow.get("goes on")
			eventually(t, "nothing is lent", func() bool { return h.buffers.Lent() == 0 })
		})
	}
}

// takeTurn has the caller write to the client, in the place of a lane's reader.
func (s *session) takeTurn(t testing.TB) {
	t.Helper()
	q := &s.queue
	eventually(t, "nobody writes", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.turn {
			return false
		}
		q.turn = true
		return true
	})
}

// The answers to KeyUpdate wait in the backlog, not under the lock that whoever writes to the client needs.
func TestKeyUpdatesOfAClientThatStopsReadingHoldUpNoWriter(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h, gates := b.startGated(func(c *Config) { c.TLS.MinVersion = tls.VersionTLS13 })
	var keys bytes.Buffer
	c, raw := h.slowReader(tls.VersionTLS13, &keys)
	w := newWire(t, c)
	if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("the KeyUpdates are made for AES-128-GCM, which this machine does not prefer")
	}
	_, rest, _ := strings.Cut(keys.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	line, _, _ := strings.Cut(rest, "\n")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	s := h.sessionOf(w)
	sock := s.client.sock
	s.takeTurn(t)
	gates.of(w).Stop()
	sent := bytes.Repeat([]byte("sent before "), 300)
	if err := s.writeNow(sent); err != nil {
		t.Fatal(err)
	}
	const n = 10 // crypto/tls takes 16 without a byte of the client between them
	flood := keyUpdates(t, secret, n)
	for i := range n {
		before, size := sock.backlog.end(), len(flood)/n
		if _, err := raw.Write(flood[i*size : (i+1)*size]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is answered, and the answer waits in the backlog", func() bool { return sock.backlog.end() > before })
	}
	if err := s.writeNow([]byte("behind them")); err != nil {
		t.Fatal(err)
	}
	gates.of(w).Open()
	w.wantLong(string(sent) + "behind them")
	if err := sock.flushed(); err != nil {
		t.Fatal(err)
	}
	s.dropOut() // gives the turn back
}

func TestWhatALanesReaderLeavesToAWriter(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		size    int
		pending bool
		left    bool
	}{
		"nothing":           {0, false, false},
		"what fits":         {maxWriteNow, false, false},
		"more":              {maxWriteNow + 1, false, true},
		"many buffers":      {3 * netio.ChunkSize, false, true},
		"behind a backlog":  {1, true, true},
		"none, but backlog": {0, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, gates := newLaneBackend(t).startGated(nil)
			w := h.dial()
			w.get("0")
			s := h.sessionOf(w)
			s.takeTurn(t)
			want := ""
			if tt.pending {
				gates.of(w).Stop()
				want = strings.Repeat("a", 4000)
				if err := s.writeNow([]byte(want)); err != nil {
					t.Fatal(err)
				}
			}
			reply := strings.Repeat("b", tt.size)
			q := &s.queue
			q.mu.Lock()
			q.out.writers++
			q.out.append(s.account(), []byte(reply))
			q.mu.Unlock()
			left := s.writeOutbox(false)
			if left != tt.left {
				t.Errorf("left to a writer: %v", left)
			}
			if left {
				q.mu.Lock()
				if q.out.size != tt.size || !q.turn || q.out.writers != 1 {
					t.Errorf("%d bytes of %d, turn %v, %d writers", q.out.size, tt.size, q.turn, q.out.writers)
				}
				q.mu.Unlock()
				go s.drain() // ends with what there is, finish waits for it
			}
			gates.of(w).Open()
			w.wantLong(want + reply)
			eventually(t, "the turn is free", func() bool { return !s.hasWriters() && s.settledNow() })
			w.get("goes on")
		})
	}
}
