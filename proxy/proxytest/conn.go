package proxytest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	readSize     = 64 << 10
	readAhead    = 32      // reads taken while a command blocks
	maxUnwritten = 4 << 20 // reply bytes at which execution waits for the client
	maxPushed    = 1 << 30 // bytes at which a client that takes no pushes is closed
	halfCloseGap = 20 * time.Millisecond
)

type txState int

const (
	txNone    txState = iota
	txCollect         // commands are queued
	txError           // commands run at once until EXEC, DISCARD or RESET
)

// conn is one client connection: serve executes, read and write are its two other goroutines. All state but that of
// the sockets and of out is guarded by Dragonfly.mu.
type conn struct {
	d       *Dragonfly
	id      int
	raw, nc net.Conn
	counted bool

	chunks  chan []byte   // what each read gave, from read to serve
	gone    chan struct{} // closed when the client has closed or reset, by read
	dead    chan struct{} // closed by kill
	killing sync.Once
	lastIn  time.Time // of the last byte; written by read before gone is closed
	finned  time.Time // of the end; likewise

	eof    bool // read has seen the end
	parser parser
	behind bool // input waits behind the command that runs; serve's own

	proto          int
	db             int
	user           string
	authed         bool
	name           string
	libName        string
	libVer         string
	tx             txState
	queue          []call
	inExec         bool
	watching       map[dbKey]bool
	dirty          bool
	channels       map[string]bool
	patterns       map[string]bool
	shards         map[string]bool
	monitor        bool
	tracking       trackMode
	noLoop         bool
	caching        bool // CLIENT CACHING was said for the next command
	tracked        map[dbKey]bool
	after          []byte // pushes to itself, sent after the reply of the command that caused them
	closing        bool   // close once this command's reply is out
	dropped        bool   // close without the replies that are not out
	started, count int64

	outMu   sync.Mutex
	outCond *sync.Cond
	out     []byte // complete replies and pushes
	ready   int    // so many bytes of out may be written
	ending  bool   // write closes the socket when out is empty
}

type dbKey struct {
	db  int
	key string
}

func newConn(d *Dragonfly, id int, nc net.Conn) *conn {
	c := &conn{
		d: d, id: id, raw: nc, nc: nc, proto: 2, user: "default",
		chunks: make(chan []byte, readAhead), gone: make(chan struct{}), dead: make(chan struct{}),
		watching: map[dbKey]bool{}, channels: map[string]bool{}, patterns: map[string]bool{}, shards: map[string]bool{},
		tracked: map[dbKey]bool{}, name: itoa(id), started: time.Now().Unix(),
	}
	c.outCond = sync.NewCond(&c.outMu)
	c.authed = d.opt.RequirePass == ""
	return c
}

// kill closes the socket at once. It never blocks, and may be called by anybody.
func (c *conn) kill() {
	c.killing.Do(func() {
		close(c.dead)
		_ = c.raw.Close() // not the TLS connection: its Close may wait for a write in progress
		c.outMu.Lock()
		c.ending = true
		c.out, c.ready = nil, 0
		c.outCond.Broadcast()
		c.outMu.Unlock()
	})
}

func (c *conn) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

func (c *conn) serve(full bool) {
	defer c.d.wg.Done()
	defer c.leave()
	if !c.handshake() {
		return
	}
	if full {
		_, _ = c.nc.Write([]byte("-ERR max number of clients reached\r\n"))
		return
	}
	var wg sync.WaitGroup
	wg.Add(2)
	go c.read(&wg)  // ends with the socket or kill; serve waits for it below
	go c.write(&wg) // ends with ending or kill; serve waits for it below
	c.execute()
	c.end()
	wg.Wait()
}

func (c *conn) leave() {
	d := c.d
	c.kill()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c.id)
	if c.counted {
		d.open--
	}
	d.notify()
}

func (c *conn) handshake() bool {
	if c.d.opt.TLS == nil {
		return true
	}
	_ = c.raw.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Server(c.raw, c.d.opt.TLS)
	if err := tc.Handshake(); err != nil {
		var notTLS tls.RecordHeaderError
		if errors.As(err, &notTLS) && notTLS.Conn != nil {
			_, _ = c.raw.Write([]byte("-ERR Bad TLS header, double check if you enabled TLS for your client.\r\n"))
		}
		return false
	}
	_ = c.raw.SetDeadline(time.Time{})
	c.nc = tc
	return true
}

// read hands on each read as one chunk, since an empty line acts to the end of its read only.
func (c *conn) read(wg *sync.WaitGroup) {
	defer wg.Done()
	defer close(c.chunks)
	defer close(c.gone)
	buf := make([]byte, readSize)
	for {
		if !c.gate() {
			return
		}
		n, err := c.nc.Read(buf)
		if n > 0 {
			c.lastIn = time.Now()
			if !c.gate() {
				return
			}
			chunk := bytes.Clone(buf[:n])
			c.keepRaw(chunk)
			select {
			case c.chunks <- chunk:
			case <-c.dead:
				return
			}
		}
		if err != nil {
			if c.nc != c.raw && errors.Is(err, io.EOF) {
				c.awaitFIN()
			}
			c.finned = time.Now()
			if !errors.Is(err, io.EOF) {
				c.kill()
			}
			c.d.forgetWaiter(c)
			return
		}
	}
}

// awaitFIN waits for the FIN after a close_notify: Dragonfly does not react to a close_notify alone.
func (c *conn) awaitFIN() {
	_, _ = io.Copy(io.Discard, c.raw) // ends with the socket, which kill closes
}

func (c *conn) keepRaw(b []byte) {
	d := c.d
	if d.opt.RawLimit == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if room := d.opt.RawLimit - len(d.raw[c.id]); room > 0 {
		d.raw[c.id] = append(d.raw[c.id], b[:min(room, len(b))]...)
	}
	d.notify()
}

// gate waits while the server is stalled; false: the connection is dead.
func (c *conn) gate() bool {
	for {
		c.d.mu.Lock()
		stalled := c.d.stalled
		c.d.mu.Unlock()
		if stalled == nil {
			return !c.isDead()
		}
		select {
		case <-stalled:
		case <-c.dead:
			return false
		}
	}
}

// execute runs what was read until the connection is to end.
func (c *conn) execute() {
	first := true
	for chunk := range c.chunks {
		if first && c.greet(chunk) {
			return
		}
		first = false
		c.parser.feed(chunk)
		for {
			args, err := c.parser.next()
			if err != nil {
				if c.d.opt.LoseRepliesOnProtocolError {
					c.drop()
				}
				c.append([]byte("-ERR Protocol error: -ERR Protocol error: "+err.Error()+"\r\n"), true)
				return
			}
			if args == nil {
				break
			}
			c.behind = len(c.parser.buf) > 0 || len(c.chunks) > 0
			if !c.gate() || !c.run(args) {
				return
			}
		}
		c.parser.endOfRead()
		if !c.settle() {
			return
		}
	}
}

// settle lets the replies of a read go, or drops them when a FIN came shortly after it.
func (c *conn) settle() bool {
	if !c.d.opt.KeepRepliesOnHalfClose {
		if w := c.d.opt.HalfCloseWindow; w > 0 && len(c.chunks) == 0 {
			t := time.NewTimer(w)
			select {
			case <-c.gone:
			case <-t.C:
			case <-c.dead:
			}
			t.Stop()
		}
		select {
		case <-c.gone:
			if c.finned.Sub(c.lastIn) < halfCloseGap {
				c.drop()
			}
		default:
		}
	}
	return c.flush()
}

// greet deals with a connection that begins with something other than RESP; true: it is over.
func (c *conn) greet(chunk []byte) bool {
	if bytes.HasPrefix(chunk, []byte{0x16, 0x03}) {
		return true
	}
	line, _, found := bytes.Cut(chunk, []byte("\r\n"))
	if c.d.opt.NoHTTP || !found || !bytes.HasSuffix(line, []byte(" HTTP/1.1")) {
		return false
	}
	fields := bytes.Fields(line)
	if method := string(fields[0]); len(fields) != 3 || method != "GET" && method != "POST" {
		return false
	}
	c.append([]byte(c.d.web(string(fields[1]))), true)
	<-c.chunks // whatever comes next ends it
	return true
}
