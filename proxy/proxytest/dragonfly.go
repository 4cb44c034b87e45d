package proxytest

import (
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"
)

// Release is a release of Dragonfly that can be played.
type Release uint8

// The zero value is the release that most transcripts were recorded on.
const (
	V1_40      Release = iota // v1.40.1
	August2026                // the main branch of 22 August 2026
)

// User is an ACL user. Its commands are all but Deny.
type User struct {
	Name     string
	Password string // empty: nopass
	Deny     []string
	Database int // where AUTH puts a connection, as the rule $1 of an ACL does
}

// Options of a Dragonfly. The zero value is a plain open server on a loopback port.
type Options struct {
	Listen       string // "host:port" or "unix:/path"; empty: 127.0.0.1:0
	TLS          *tls.Config
	RequirePass  string
	Users        []User
	MaxClients   int // 0: 64000
	FirstID      int // id of the first connection; 0: 1
	Loading, OOM bool
	Release      Release

	// OnCommand sees every complete command before it runs and may answer in its place: reply is sent as it is, and
	// may be empty, several frames or half of one. It runs in the connection's goroutine and may block; it should
	// then watch Done.
	OnCommand func(conn int, args [][]byte) (reply []byte, override bool)

	LoseRepliesOnProtocolError bool // the replies of the same read are dropped

	// KeepRepliesOnHalfClose turns off that a FIN within 20 ms of the last byte drops what is not sent yet.
	// HalfCloseWindow holds the replies of each read this long to see whether a FIN follows, which makes the loss
	// certain; 0: only what the race gives.
	KeepRepliesOnHalfClose bool
	HalfCloseWindow        time.Duration

	NoHTTP    bool // --primary_port_http_enabled=false
	LogLimit  int  // commands kept for Commands, the first ones; 0: 10,000
	RawLimit  int  // bytes per connection kept for RawBytes; 0 keeps none
	ScriptMax int  // scripts remembered; 0: 1,000
}

// What Commands keeps: an argument is cut at maxLogArg, and nothing more is kept beyond maxLogBytes.
const (
	maxLogArg   = 64 << 10
	maxLogBytes = 64 << 20
)

// Command is one command as it arrived.
type Command struct {
	Conn int
	Args [][]byte
}

// String is for failure messages of tests.
func (c Command) String() string {
	parts := make([]string, len(c.Args))
	for i, a := range c.Args {
		parts[i] = string(a)
	}
	return strings.Join(parts, " ")
}

// Dragonfly plays the release of Dragonfly that Options.Release names. All methods may be called concurrently.
type Dragonfly struct {
	opt  Options
	ln   net.Listener
	done chan struct{} // closed by Close
	wg   sync.WaitGroup

	mu       sync.Mutex // guards all below and the state of every conn
	changed  *sync.Cond
	conns    map[int]*conn
	open     int // connections accepted and not ended
	lastID   int
	accepted int
	log      []Command
	logBytes int
	raw      map[int][]byte
	events   int           // counts what Wait may wait for
	stalled  chan struct{} // closed by Release; nil: not stalled
	closed   bool

	loading, oom bool
	config       map[string]string
	users        map[string]*aclUser
	dbs          [16]map[string]*value
	waiters      []*waiter
	scripts      map[string]string
	commands     map[string]*command // never changed
	paused       time.Time
	onCommand    func(conn int, args [][]byte) ([]byte, bool)
}

// NewDragonfly listens and serves until Close.
func NewDragonfly(opt Options) (*Dragonfly, error) {
	if opt.MaxClients == 0 {
		opt.MaxClients = 64000
	}
	if opt.LogLimit == 0 {
		opt.LogLimit = 10000
	}
	if opt.FirstID == 0 {
		opt.FirstID = 1
	}
	if opt.ScriptMax == 0 {
		opt.ScriptMax = 1000
	}
	network, address := "tcp", opt.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	d := &Dragonfly{
		opt: opt, ln: ln, done: make(chan struct{}), lastID: opt.FirstID - 1,
		conns: map[int]*conn{}, raw: map[int][]byte{}, scripts: map[string]string{},
		loading: opt.Loading, oom: opt.OOM, onCommand: opt.OnCommand,
	}
	d.changed = sync.NewCond(&d.mu)
	for i := range d.dbs {
		d.dbs[i] = map[string]*value{}
	}
	d.commands = commandTable()
	d.setUpConfig()
	d.setUpUsers()
	d.wg.Add(1)
	go d.accept() // Close stops it and waits for it
	return d, nil
}

// Addr is host:port, or the path of a Unix socket.
func (d *Dragonfly) Addr() string { return d.ln.Addr().String() }

// Done is closed by Close.
func (d *Dragonfly) Done() <-chan struct{} { return d.done }

func (d *Dragonfly) accept() {
	defer d.wg.Done()
	for {
		nc, err := d.ln.Accept()
		if err != nil {
			select {
			case <-d.done:
				return
			default:
			}
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				continue
			}
			time.Sleep(time.Millisecond) // out of descriptors
			continue
		}
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			_ = nc.Close()
			return
		}
		full := d.open >= d.opt.MaxClients
		d.lastID++
		d.accepted++
		c := newConn(d, d.lastID, nc)
		d.conns[c.id] = c
		if !full {
			d.open++
			c.counted = true
		}
		d.wg.Add(1)
		d.notify()
		d.mu.Unlock()
		go c.serve(full) // ends with its socket, which Close closes; Close waits for it
	}
}

// Close closes the listener and every connection, and waits for all goroutines.
func (d *Dragonfly) Close() {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.done)
	}
	_ = d.ln.Close()
	for _, c := range d.conns {
		c.kill()
	}
	d.notify()
	d.mu.Unlock()
	d.wg.Wait()
}

// notify wakes Wait; the caller holds mu.
func (d *Dragonfly) notify() {
	d.events++
	d.changed.Broadcast()
}

func linger0(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}
