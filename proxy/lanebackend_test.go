package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dragontls/proxy/resp"
)

// laneBackend answers well until a test says otherwise, and remembers what came on which connection.
type laneBackend struct {
	t    testing.TB
	ln   net.Listener
	addr string
	done chan struct{} // closed at the end of the test: whoever holds goes on

	mu sync.Mutex
	// guarded by mu
	conns  []*laneConn
	rule   laneRule
	raw    func(*laneConn) bool // takes a connection over, in place of the next command
	refuse func(*laneConn)      // takes a new connection over
	text   strings.Builder      // what came that is no command
	holds  map[string]*laneHold
}

// laneRule answers in the place of the backend. It runs in the connection's goroutine, may read on, write and close, and
// gives what is left to say. false: the backend answers as it should.
type laneRule func(c *laneConn, args []string) (reply string, override bool)

// laneConn is a connection of a laneBackend; its goroutine owns what mu of the backend does not guard.
type laneConn struct {
	net.Conn // tcp, or the TLS connection over it
	tcp      *net.TCPConn
	b        *laneBackend
	r        *bufio.Reader
	w        *bufio.Writer
	db       int
	proto    int
	multi    bool
	queued   []string // replies of what the open transaction holds

	lane  bool       // what it began with asks for a nonce
	got   [][]string // guarded by b.mu
	ended bool       // guarded by b.mu
}

// laneHold stops a connection at a command.
type laneHold struct {
	reached chan struct{} // closed when the command has come
	reply   chan func(*laneConn) string
}

// infoThen has the client w send INFO, which goes over its session's own connection, and waits for the reply. When the test
// closes say, the backend calls more, which writes to that connection what nobody has asked for.
func (b *laneBackend) infoThen(w *wire, more func(*laneConn)) (say chan struct{}) {
	b.t.Helper()
	onOwn, say := b.hold("on own"), make(chan struct{})
	w.send(cmd("INFO", "on own"))
	<-onOwn.reached
	onOwn.reply <- func(c *laneConn) string {
		c.w.WriteString(bulk("info"))
		c.w.Flush()
		select {
		case <-say:
		case <-b.done:
		}
		more(c)
		return ""
	}
	w.want(bulk("info"))
	return say
}

// newLaneBackend is one at an address that nobody else takes when its listener is closed.
func newLaneBackend(t testing.TB) *laneBackend {
	t.Helper()
	return newLaneBackendOn(t, reserve(t, "127.0.0.1")[0])
}

func newLaneBackendOn(t testing.TB, addr string) *laneBackend {
	t.Helper()
	return newLaneBackendWith(t, addr, nil)
}

// newLaneBackendWith speaks TLS where there is a configuration.
func newLaneBackendWith(t testing.TB, addr string, conf *tls.Config) *laneBackend {
	t.Helper()
	b := &laneBackend{t: t, done: make(chan struct{}), holds: map[string]*laneHold{}}
	b.ln = fakeBackendOn(t, addr, func(c net.Conn) {
		l := &laneConn{Conn: c, tcp: c.(*net.TCPConn), b: b, proto: 2}
		if conf != nil {
			l.Conn = tls.Server(c, conf)
		}
		l.r, l.w = bufio.NewReaderSize(l.Conn, 64<<10), bufio.NewWriter(l.Conn)
		b.mu.Lock()
		b.conns = append(b.conns, l)
		refuse := b.refuse
		b.mu.Unlock()
		if refuse != nil {
			refuse(l)
			return
		}
		l.serve()
		b.mu.Lock()
		l.ended = true
		b.mu.Unlock()
	})
	b.addr = b.ln.Addr().String()
	t.Cleanup(func() { close(b.done) })
	return b
}

// start is a Server in front of it, whose sessions ride one lane of a key from their first command on. What they ask goes
// out at once.
func (b *laneBackend) start(change func(*Config)) *harness {
	b.t.Helper()
	return b.startBehind(change, nil)
}

// startGated is start with gates in front of its clients.
func (b *laneBackend) startGated(change func(*Config)) (h *harness, all *gates) {
	b.t.Helper()
	h = b.startBehind(change, func(ln net.Listener) net.Listener {
		all = newGates(b.t, ln)
		return all
	})
	return h, all
}

func (b *laneBackend) startBehind(change func(*Config), wrap func(net.Listener) net.Listener) *harness {
	b.t.Helper()
	return startBehind(b.t, b.addr, func(c *Config) {
		share(c)
		c.Backend.Credentials = credentials("", "secret")
		c.Backend.Lanes, c.unavailableTimeout = 1, patience
		if change != nil {
			change(c)
		}
	}, wrap)
}

// on sets the rule for all connections.
func (b *laneBackend) on(r laneRule) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rule = r
}

// onRaw has f look at the bytes that come on any connection.
func (b *laneBackend) onRaw(f func(*laneConn) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.raw = f
}

// onAccept has f take over all new connections; nil: nobody does.
func (b *laneBackend) onAccept(f func(*laneConn)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = f
}

// lines says that something came which is no command and contains s.
func (b *laneBackend) lines(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.text.String(), s)
}

// hold stops the connection on which the next command with this last argument comes.
func (b *laneBackend) hold(last string) *laneHold {
	h := &laneHold{reached: make(chan struct{}), reply: make(chan func(*laneConn) string, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds[last] = h
	return h
}

// say lets the connection go on with this reply.
func (h *laneHold) say(reply string) { h.reply <- func(*laneConn) string { return reply } }

// release lets it go on with the right one.
func (h *laneHold) release() { h.reply <- nil }

// connsWith lists the lanes, or the other connections, on which a command came.
func (b *laneBackend) connsWith(lane bool, name string) (all []*laneConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		if c.lane == lane && slices.ContainsFunc(c.got, func(args []string) bool { return strings.EqualFold(args[0], name) }) {
			all = append(all, c)
		}
	}
	return all
}

// forget drops the connections that have ended, and what has come over the others but for the last command of each, so that a test may go
// on for long.
func (b *laneBackend) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = slices.DeleteFunc(b.conns, func(c *laneConn) bool { return c.ended })
	for _, c := range b.conns {
		if n := len(c.got); n > 1 {
			c.got = [][]string{c.got[n-1]}
		}
	}
}

// lanes is the number of lanes that were ever asked for.
func (b *laneBackend) lanes() int { return len(b.connsWith(true, "ECHO")) }

// commands is what came on the connection.
func (c *laneConn) commands() [][]string {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return slices.Clone(c.got)
}

// count counts commands by their first and, where given, last word on all connections.
func (b *laneBackend) count(name, last string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		for _, args := range c.got {
			if args[0] == name && (last == "" || args[len(args)-1] == last) {
				n++
			}
		}
	}
	return n
}

func (c *laneConn) serve() {
	for {
		args, err := c.next()
		if err != nil {
			if notTLS := (tls.RecordHeaderError{}); errors.As(err, &notTLS) {
				b := notTLS.RecordHeader
				c.b.t.Errorf("%q on a TLS connection", b[:])
			}
			return
		}
		s, ok := c.act(args)
		if !ok {
			s = c.answer(args)
		}
		if _, err := c.w.WriteString(s); err != nil {
			return
		}
		if args[0] == "QUIT" && !c.multi { // inside a transaction it is queued, as Dragonfly does
			c.end()
			return
		}
	}
}

// next reads a command; what was answered goes out before it waits for one.
func (c *laneConn) next() ([]string, error) {
	if c.r.Buffered() == 0 {
		c.w.Flush()
		if _, err := c.r.Peek(1); err != nil {
			return nil, err
		}
	}
	c.b.mu.Lock()
	raw := c.b.raw
	c.b.mu.Unlock()
	if raw != nil && raw(c) {
		return nil, io.EOF
	}
	if first, err := c.r.Peek(1); err == nil && first[0] != '*' {
		line, _ := c.r.ReadString('\n')
		c.b.mu.Lock()
		c.b.text.WriteString(line)
		c.b.mu.Unlock()
		return nil, io.EOF
	}
	ahead, _ := c.r.Peek(c.r.Buffered())
	args, err := readCommand(c.r)
	if err != nil {
		return nil, err
	}
	c.b.mu.Lock()
	if len(c.got) == 0 {
		c.lane = bytes.Contains(ahead, []byte("\r\n$4\r\nECHO\r\n$16\r\n"))
	}
	c.got = append(c.got, args)
	c.b.mu.Unlock()
	return args, nil
}

// act does what the test says.
func (c *laneConn) act(args []string) (string, bool) {
	b := c.b
	last := args[len(args)-1]
	b.mu.Lock()
	rule, h := b.rule, b.holds[last]
	delete(b.holds, last)
	b.mu.Unlock()
	if h != nil {
		c.w.Flush()
		close(h.reached)
		select {
		case f := <-h.reply:
			if f != nil {
				return f(c), true
			}
		case <-b.done:
		}
	}
	if rule == nil {
		return "", false
	}
	return rule(c, args)
}

func bulk(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

// valueOf is what GET of a key is answered: no two keys have the same.
func valueOf(key string) string { return bulk("value of " + key) }

// answer is what a backend says.
func (c *laneConn) answer(args []string) string {
	name := strings.ToUpper(args[0])
	switch name {
	case "MULTI":
		c.multi, c.queued = true, nil
		return "+OK\r\n"
	case "EXEC":
		if !c.multi {
			return "-ERR EXEC without MULTI\r\n"
		}
		c.multi = false
		return fmt.Sprintf("*%d\r\n%s", len(c.queued), strings.Join(c.queued, ""))
	case "DISCARD":
		c.multi = false
		return "+OK\r\n"
	}
	reply := c.plain(name, args)
	if c.multi {
		c.queued = append(c.queued, reply)
		return "+QUEUED\r\n"
	}
	return reply
}

func (c *laneConn) plain(name string, args []string) string {
	switch name {
	case "PING":
		return "+PONG\r\n"
	case "ECHO":
		return bulk(args[1])
	case "GET":
		return valueOf(args[1])
	case "HGET": // where it was asked
		return bulk(fmt.Sprintf("%d %d", c.db, c.proto))
	case "INFO":
		return bulk("info")
	case "RESET":
		c.db, c.proto = 0, 2
		return "+RESET\r\n"
	case "HELLO":
		if len(args) > 1 {
			fmt.Sscan(args[1], &c.proto)
		}
		if c.proto == 3 {
			return "%1\r\n$5\r\nproto\r\n:3\r\n"
		}
		return "*2\r\n$5\r\nproto\r\n:2\r\n"
	case "SELECT":
		fmt.Sscan(args[1], &c.db)
	case "AUTH", "SET", "CLIENT", "WATCH", "UNWATCH", "EXPIRE", "QUIT", "DEL":
	default:
		return "-ERR unknown command\r\n"
	}
	return "+OK\r\n"
}

// reset ends the connection with RST.
func (c *laneConn) reset() {
	c.w.Flush()
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

// end closes the connection behind what was said: what is still to be read would turn FIN into RST.
func (c *laneConn) end() {
	c.w.Flush()
	if t, ok := c.Conn.(*tls.Conn); ok {
		t.CloseWrite()
	}
	c.tcp.CloseWrite()
	io.Copy(io.Discard, c.Conn)
	c.Close()
}

// pass lets time pass, once nothing is owed that was answered: a reply is out before it is accounted for.
func (h *harness) pass(d time.Duration) {
	h.t.Helper()
	h.each(func(s *session) {
		for s.owes() && s.mayBeSettled() {
			runtime.Gosched()
		}
	})
	h.ahead.Add(d)
}

// closeUnused lets idle lanes and the session's idle own connection close, once they are idle: a reply may be out before
// the session's reader has left its own connection alone.
func (h *harness) closeUnused(s *session) {
	h.t.Helper()
	eventually(h.t, "what the session has is idle", func() bool {
		_, idle := s.ownIdleAt()
		return (idle || !s.hasOwn()) && !slices.ContainsFunc(h.openLanes(), func(l aLane) bool {
			_, idle := l.idleAt()
			return !idle
		})
	})
	h.pass(laneIdle)
	h.sweepUnused()
}

// mayBeSettled says that a reply is being passed on.
func (s *session) mayBeSettled() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.turn && !s.queue.closed
}

// wantOnLanes says that so many commands of a name have ridden lanes. A command is counted before it is written.
func (h *harness) wantOnLanes(name string, n int) {
	h.t.Helper()
	if got := h.Stats().CommandsLane[name]; got != uint64(n) {
		h.t.Errorf("%d %s rode lanes, want %d", got, name, n)
	}
}

// sessionOf is the session of a client.
func (h *harness) sessionOf(w *wire) (found *session) {
	h.t.Helper()
	eventually(h.t, "the session is there", func() bool {
		h.each(func(s *session) {
			if s.client.sock.RemoteAddr().String() == w.LocalAddr().String() {
				found = s
			}
		})
		return found != nil
	})
	return found
}

func (w *wire) get(key string) {
	w.t.Helper()
	w.do(valueOf(key), "GET", key)
}

// endsUnanswered waits for the end of a connection on which nothing more may come.
func (w *wire) endsUnanswered() {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	if first, err := w.r.Peek(1); len(first) > 0 {
		w.t.Fatalf("got %q where the end should come", first)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		w.t.Fatal("it does not end")
	}
}

// pipelineOf is a pipeline of n GETs, and what it is answered.
func pipelineOf(n int, prefix string) (commands, replies string) {
	var c, r strings.Builder
	for i := range n {
		key := fmt.Sprintf("%s-%d", prefix, i)
		c.Write(resp.AppendCommand(nil, "GET", key))
		r.WriteString(valueOf(key))
	}
	return c.String(), r.String()
}

// unconnected returns a backend, a proxy in front of it, and a session that the backend has served and that has no connection any more.
func unconnected(t *testing.T) (*laneBackend, *harness, *wire) {
	t.Helper()
	b := newLaneBackend(t)
	h := b.start(func(c *Config) { c.unavailableTimeout = outage })
	w := settledAtLast(h)
	s := h.sessionOf(w)
	h.closeUnused(s)
	eventually(t, "it has no connection", func() bool { return !s.hasOwn() && len(h.openLanes()) == 0 })
	return b, h, w
}
