package proxytest

import (
	"io"
	"math/rand"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is what a relay does to the bytes of one direction of a connection. The zero value passes them on.
type Fault struct {
	Delay    time.Duration // before each piece is passed on; Jitter adds a random part of itself
	Jitter   time.Duration
	MaxPiece int  // bytes of one write at most; 1 drips, 0: as read (up to 32 KiB)
	Random   bool // pieces of 1 to MaxPiece bytes, by Faults.Seed
	Rate     int  // bytes a second; 0: no limit
	Pause    int  // stop reading after so many bytes, until Release; 0: never
	Cut      int  // after so many bytes, inside a frame or not, do CutWith; 0: never
	CutWith  Cut
}

// Cut is how a relay ends what it has cut.
type Cut int

const (
	CutReset     Cut = iota // RST to both sides
	CutFIN                  // close both sides with FIN
	CutHalfClose            // FIN to the receiver of this direction; the other direction lives on
	CutSilent               // nothing more is read, passed on or closed, until Close or ResetAll
)

// Faults are those of a connection. Seed makes the random ones the same in each run: the n-th connection uses Seed + n.
type Faults struct {
	ToTarget, ToClient Fault
	Seed               int64
	Hold               bool // both directions wait for Release
}

// Relay stands between clients and a target and injures what passes. All methods may be called concurrently.
type Relay struct {
	ln   net.Listener
	done chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	network  string
	target   string
	faults   Faults
	links    map[*link]bool
	accepted int64
	released chan struct{} // closed by Release, then replaced
	waiting  int           // directions that wait for it
	closed   bool
}

// link is one relayed connection.
type link struct {
	client, target net.Conn
	silent         atomic.Bool
	once           sync.Once
	done           chan struct{}
}

// NewRelay listens on a loopback port. target is host:port, or unix:/path.
func NewRelay(target string, f Faults) (*Relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{ln: ln, faults: f, done: make(chan struct{}), links: map[*link]bool{}, released: make(chan struct{})}
	r.Retarget(target)
	r.wg.Add(1)
	go r.accept() // Close stops it and waits for it
	return r, nil
}

// Addr is host:port.
func (r *Relay) Addr() string { return r.ln.Addr().String() }

// SetFaults is for connections to come.
func (r *Relay) SetFaults(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

// Retarget leads connections to come to another target, as a stable address does at a failover. Open connections stay where
// they are.
func (r *Relay) Retarget(target string) {
	network, at := "tcp", target
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		network, at = "unix", path
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.network, r.target = network, at
}

// Silence drops what passes on the connections that are open now, as a middlebox does that has lost its state: it takes everything,
// passes nothing on, and tells nobody. They last until Close or ResetAll.
func (r *Relay) Silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.links {
		l.silent.Store(true)
	}
}

// Conns is the number of open connections.
func (r *Relay) Conns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.links)
}

// Accepted counts the connections that ever came.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(r.accepted)
}

// Release lets everything go on that is paused or held now.
func (r *Relay) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.released)
	r.released = make(chan struct{})
}

// Waiting is the number of directions that are paused or held.
func (r *Relay) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

func (r *Relay) addWaiting(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting += n
}

// ResetAll ends every connection with RST on both sides.
func (r *Relay) ResetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.links {
		l.end(true)
	}
}

// Close closes the listener and every connection, and waits for all goroutines.
func (r *Relay) Close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.done)
	}
	_ = r.ln.Close()
	for l := range r.links {
		l.end(false)
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *Relay) accept() {
	defer r.wg.Done()
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.wg.Add(1)
		go r.serve(c) // ends with its link, which Close ends; Close waits for it
	}
}

func (r *Relay) serve(client net.Conn) {
	defer r.wg.Done()
	r.mu.Lock()
	network, at := r.network, r.target
	r.mu.Unlock()
	target, err := net.DialTimeout(network, at, 5*time.Second)
	if err != nil {
		linger0(client)
		_ = client.Close()
		return
	}
	l := &link{client: client, target: target, done: make(chan struct{})}
	r.mu.Lock()
	f := r.faults
	f.Seed += r.accepted
	r.accepted++
	r.links[l] = true
	released := r.released
	closed := r.closed
	r.mu.Unlock()
	defer func() {
		l.end(false)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.links, l)
	}()
	if closed {
		return
	}
	if !f.Hold {
		released = nil
	}
	var wg sync.WaitGroup
	wg.Add(2)
	up := pump{r, l, f.ToTarget, client, target, rand.New(rand.NewSource(2 * f.Seed))}
	down := pump{r, l, f.ToClient, target, client, rand.New(rand.NewSource(2*f.Seed + 1))}
	go up.run(&wg, released)   // both end with the link; serve waits for them below
	go down.run(&wg, released) //
	wg.Wait()
}

// end never blocks.
func (l *link) end(reset bool) {
	l.once.Do(func() {
		close(l.done)
		if reset {
			linger0(l.client)
			linger0(l.target)
		}
		_ = l.client.Close()
		_ = l.target.Close()
	})
}

// pump moves the bytes of one direction.
type pump struct {
	r        *Relay
	l        *link
	f        Fault
	from, to net.Conn
	random   *rand.Rand
}

func (p *pump) run(wg *sync.WaitGroup, released <-chan struct{}) {
	defer wg.Done()
	if released != nil && !p.wait(released) {
		return
	}
	buf := make([]byte, 32<<10)
	passed := 0
	for {
		room := len(buf)
		if p.f.Pause > 0 && passed < p.f.Pause {
			room = min(room, p.f.Pause-passed)
		}
		n, err := p.from.Read(buf[:room])
		if p.l.silent.Load() {
			if err == nil {
				continue
			}
			<-p.l.done
			return
		}
		if n > 0 {
			cut, ok := p.pass(buf[:n], &passed)
			if cut {
				p.cut()
				return
			}
			if !ok {
				p.l.end(false)
				return
			}
		}
		if err == io.EOF {
			halfClose(p.to)
			return
		}
		if err != nil {
			p.l.end(true) // a reset goes on as a reset
			return
		}
		if p.f.Pause > 0 && passed == p.f.Pause {
			p.r.mu.Lock()
			released := p.r.released
			p.r.mu.Unlock()
			if !p.wait(released) {
				return
			}
		}
	}
}

func (p *pump) wait(c <-chan struct{}) bool {
	p.r.addWaiting(1)
	defer p.r.addWaiting(-1)
	select {
	case <-c:
		return true
	case <-p.l.done:
		return false
	}
}

// pass writes b in pieces; cut: Fault.Cut bytes have passed; !ok: the connection is over.
func (p *pump) pass(b []byte, passed *int) (cut, ok bool) {
	for len(b) > 0 {
		n := len(b)
		if m := p.f.MaxPiece; m > 0 {
			if p.f.Random {
				m = 1 + p.random.Intn(m)
			}
			n = min(n, m)
		}
		if p.f.Rate > 0 {
			n = min(n, max(p.f.Rate/100, 1))
		}
		if p.f.Cut > 0 {
			n = min(n, p.f.Cut-*passed)
		}
		if !p.sleep(n) {
			return false, false
		}
		if _, err := p.to.Write(b[:n]); err != nil {
			return false, false
		}
		b = b[n:]
		*passed += n
		if p.f.Cut > 0 && *passed >= p.f.Cut {
			return true, true
		}
	}
	return false, true
}

// sleep waits as long as a piece of n bytes takes.
func (p *pump) sleep(n int) bool {
	d := p.f.Delay
	if p.f.Jitter > 0 {
		d += time.Duration(p.random.Int63n(int64(p.f.Jitter)))
	}
	if p.f.Rate > 0 {
		d += time.Duration(n) * time.Second / time.Duration(p.f.Rate)
	}
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.l.done:
		return false
	}
}

func (p *pump) cut() {
	switch p.f.CutWith {
	case CutReset:
		// What was written must leave before RST throws it away.
		drained(p.to)
		p.l.end(true)
	case CutFIN:
		halfClose(p.to)
		halfClose(p.from)
		// Bytes that nobody reads would turn Close into a reset.
		_ = p.from.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, p.from)
		p.l.end(false)
	case CutHalfClose:
		halfClose(p.to)
		_, _ = io.Copy(io.Discard, p.from)
	case CutSilent:
		<-p.l.done
	}
}

func halfClose(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
