package proxytest

import (
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"time"
)

// User is an ACL user. Its commands are all but Deny.
type User struct {
	Name     string
	Password string // empty: nopass
	Deny     []string
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
	LogLimit  int  // commands kept for Commands; 0: 10,000
	RawLimit  int  // bytes per connection kept for RawBytes; 0: none
	ScriptMax int  // scripts remembered; 0: 1,000
}

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

// Dragonfly plays Dragonfly v1.40.1. All methods may be called concurrently.
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

// KillAll closes every connection at once, without a word.
func (d *Dragonfly) KillAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.kill()
	}
}

// Kill closes one connection at once; ResetConn does it with RST.
func (d *Dragonfly) Kill(conn int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.conns[conn]; c != nil {
		c.kill()
	}
}

// ResetConn closes one connection with RST, where its socket knows that.
func (d *Dragonfly) ResetConn(conn int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.conns[conn]; c != nil {
		linger0(c.raw)
		c.kill()
	}
}

// Send writes raw bytes on a connection, behind the replies that are complete.
func (d *Dragonfly) Send(conn int, raw []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.conns[conn]; c != nil {
		c.append(raw, true)
	}
}

// Stall stops reading and answering on every connection, as SIGSTOP does; the kernel still accepts.
// A read that waits may take one more piece of up to 64 KiB.
func (d *Dragonfly) Stall() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled == nil {
		d.stalled = make(chan struct{})
	}
}

// Release ends Stall.
func (d *Dragonfly) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stalled != nil {
		close(d.stalled)
		d.stalled = nil
	}
}

// SetLoading turns LOADING replies on and off.
func (d *Dragonfly) SetLoading(on bool) { d.locked(func() { d.loading = on }) }

// SetOOM turns Out of memory replies on and off.
func (d *Dragonfly) SetOOM(on bool) { d.locked(func() { d.oom = on }) }

// SetOnCommand replaces Options.OnCommand for commands to come.
func (d *Dragonfly) SetOnCommand(f func(conn int, args [][]byte) (reply []byte, override bool)) {
	d.locked(func() { d.onCommand = f })
}

func (d *Dragonfly) locked(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	d.notify()
}

// Conns is the number of open connections; Accepted counts those that ever were.
func (d *Dragonfly) Conns() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open
}

// Accepted counts the connections ever accepted.
func (d *Dragonfly) Accepted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepted
}

// ConnIDs lists the ids of the open connections, in no order.
func (d *Dragonfly) ConnIDs() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]int, 0, len(d.conns))
	for id := range d.conns {
		ids = append(ids, id)
	}
	return ids
}

// Blocked is the number of connections that wait in a blocking command.
func (d *Dragonfly) Blocked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiters)
}

// Commands returns what arrived, in order of arrival, at most Options.LogLimit of it.
func (d *Dragonfly) Commands() []Command {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Command(nil), d.log...)
}

// RawBytes returns the first Options.RawLimit bytes that arrived on a connection.
func (d *Dragonfly) RawBytes(conn int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.raw[conn]...)
}

// Wait returns true as soon as cond holds, which is looked at after every event; false after timeout.
// cond may call the methods of d.
func (d *Dragonfly) Wait(timeout time.Duration, cond func() bool) bool {
	end := time.Now().Add(timeout)
	timer := time.AfterFunc(timeout, func() { d.locked(func() {}) })
	defer timer.Stop()
	for {
		d.mu.Lock()
		n := d.events
		d.mu.Unlock()
		if cond() {
			return true
		}
		d.mu.Lock()
		for d.events == n && time.Now().Before(end) && !d.closed {
			d.changed.Wait()
		}
		over := !time.Now().Before(end) || d.closed
		d.mu.Unlock()
		if over {
			return cond()
		}
	}
}

// String reports the key's string value in database db, for assertions behind the wire.
func (d *Dragonfly) String(db int, key string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.dbs[db][key]
	if v == nil || v.kind != kindString {
		return "", false
	}
	return string(v.str), true
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
