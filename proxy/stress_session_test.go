package proxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stressSession is a goroutine with keys of its own and two connections, which it uses one after the other.
type stressSession struct {
	*rand.Rand
	st             *stress
	i              int
	next           int // the last value's number
	cells          [2][]*stressCell
	big            [2]*stressCell
	counters       [2]*stressCounter
	unsure         []*stressCell
	unsureCounters []*stressCounter
	graves         []*stressCell
	gravesN        []*stressCounter
	main, mate     *stressConn
	trace          []string // what happened last
}

// stressConn is one session of the proxy.
type stressConn struct {
	s      *stressSession
	role   string
	conn   *tls.Conn // nil: closed
	r      *bufio.Reader
	resp3  bool
	db     int // which of the two
	name   string
	dials  int
	op     string
	pauses time.Duration // before replies are read
}

func newStressSession(st *stress, i int) *stressSession {
	s := &stressSession{Rand: rand.New(rand.NewPCG(st.seed, uint64(i))), st: st, i: i}
	for d := range 2 {
		db := s.database(d)
		for k := range 8 {
			s.cells[d] = append(s.cells[d], &stressCell{owner: i, db: db, name: fmt.Sprintf("k%d", k), hash: k > 5, may: make([]stressValue, 1)})
		}
		s.big[d] = &stressCell{owner: i, db: db, name: "big", may: make([]stressValue, 1)}
		s.counters[d] = &stressCounter{owner: i, db: db}
	}
	s.main, s.mate = &stressConn{s: s, role: "main"}, &stressConn{s: s, role: "mate"}
	return s
}

func (s *stressSession) database(which int) int { return (s.i/stressIdentities + which) % 4 }

func (s *stressSession) value(size int) stressValue {
	s.next++
	return stressValue{s.next, size}
}

// size is mostly small.
func (s *stressSession) size() int {
	switch n := s.IntN(200); {
	case n < 150:
		return 10 + s.IntN(200)
	case n < 190:
		return 10 + s.IntN(2000)
	case n < 199:
		return 10 + s.IntN(20000)
	}
	return 60000 + s.IntN(10000) // about where lanes end
}

func (s *stressSession) note(format string, args ...any) {
	if s.trace = append(s.trace, fmt.Sprintf(format, args...)); len(s.trace) > 300 {
		s.trace = append(s.trace[:0], s.trace[150:]...)
	}
}

// fail ends the goroutine.
func (c *stressConn) fail(format string, args ...any) {
	c.s.st.failed.Store(true)
	c.s.st.t.Errorf("TEST_SEED=%d, session %d %s (%s, RESP3 %v, database %d), %s: %s\nthe last replies:\n%s", c.s.st.seed, c.s.i, c.role,
		c.name, c.resp3, c.s.database(c.db), c.op, fmt.Sprintf(format, args...), strings.Join(c.s.trace, "\n"))
	runtime.Goexit()
}

// connected sees that it is, in some protocol and database, and has a name.
func (c *stressConn) connected() *stressConn {
	for tries := 0; c.conn == nil; tries++ {
		c.s.st.giveUp()
		if tries == 200 {
			c.fail("cannot connect")
		}
		conn, err := tls.Dial("tcp", c.s.st.h.addr, c.s.st.identities[c.s.i%stressIdentities])
		if err != nil {
			c.fail("dial: %v", err)
		}
		c.conn, c.r = conn, bufio.NewReaderSize(conn, 32<<10)
		c.s.st.kinds.add("connect")
		c.resp3, c.db, c.name = false, 0, ""
		c.run("connect", c.introduction())
	}
	return c
}

// introduction gives the connection another state.
func (c *stressConn) introduction() []stressAsk {
	return []stressAsk{c.hello(c.s.IntN(2) == 0), c.choose(c.s.IntN(2)), c.rename()}
}

func (c *stressConn) hello(resp3 bool) stressAsk {
	proto := map[bool]string{false: "2", true: "3"}[resp3]
	return stateAsk(func(v stressReply) string {
		for i := 0; i+1 < len(v.all) && (v.kind == '%') == resp3; i += 2 {
			if v.all[i].is('$', "proto") && v.all[i+1].is(':', proto) {
				c.resp3 = resp3
				return ""
			}
		}
		return "protocol " + proto
	}, "HELLO", proto)
}

// choose: what is asked behind it uses that database.
func (c *stressConn) choose(db int) stressAsk {
	c.db = db
	return stateAsk(exactly('+', "OK"), "SELECT", fmt.Sprint(c.s.database(db)))
}

func (c *stressConn) rename() stressAsk {
	c.dials++
	c.name = fmt.Sprintf("s%d-%s-%d", c.s.i, c.role, c.dials)
	return stateAsk(exactly('+', "OK"), "CLIENT", "SETNAME", c.name)
}

func (c *stressConn) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// abort ends it like a client that dies.
func (c *stressConn) abort() {
	if c.s.IntN(2) == 0 {
		raw := c.conn.NetConn().(*net.TCPConn)
		raw.SetLinger(0)
		raw.Close()
		c.s.st.kinds.add("client reset")
	} else {
		c.conn.NetConn().Close()
		c.s.st.kinds.add("client close")
	}
	c.conn = nil
}

func encodeAsks(asks []stressAsk) []byte {
	var b strings.Builder
	for _, a := range asks {
		b.WriteString(cmd(a.args...))
	}
	return []byte(b.String())
}

// send writes b in pieces; the channel is closed when it has.
func (c *stressConn) send(b []byte) <-chan struct{} {
	var pieces []int
	if c.s.IntN(6) == 0 && len(b) > 1 {
		for range 1 + c.s.IntN(3) {
			pieces = append(pieces, 1+c.s.IntN(len(b)))
		}
	}
	conn, done := c.conn, make(chan struct{})
	write := func() {
		defer close(done)
		for _, n := range pieces {
			n = min(n, len(b))
			if _, err := conn.Write(b[:n]); err != nil {
				return // the reader sees why
			}
			b = b[n:]
			time.Sleep(time.Duration(n%3) * time.Millisecond)
		}
		conn.Write(b)
	}
	if len(b) < 16<<10 {
		write()
	} else {
		go write() // ends with b, or when conn is closed
	}
	return done
}

// run sends all and checks every reply. false: the connection is closed, as it may be.
func (c *stressConn) run(op string, asks []stressAsk) bool {
	c.op = op
	sent := c.send(encodeAsks(asks))
	time.Sleep(c.pauses)
	ok := c.replies(asks)
	if !ok {
		c.close()
	}
	<-sent
	return ok
}

func (c *stressConn) replies(asks []stressAsk) bool {
	st := c.s.st
	st.commands.Add(int64(len(asks)))
	mustEnd := ""
	for i, a := range asks {
		v, ok := c.read()
		if !ok {
			c.forget(asks[i:])
			return false
		}
		c.s.note("%s %s: %d of %d, %.40q: %.60v", c.name, c.op, i, len(asks), a.args, v)
		text := string(v.text) + "\r\n"
		switch {
		case v.kind == '-' && "-"+text == string(textUnavailable):
			if !st.storming.Load() {
				c.fail("%d of %d, %.80q: %v, and no backend was lost", i, len(asks), a.args, v)
			}
			if a.state && mustEnd == "" {
				mustEnd = fmt.Sprintf("%d of %d, %.80q, got %v", i, len(asks), a.args, v)
			}
			st.kinds.add("answered unavailable")
		case mustEnd != "":
			c.fail("goes on with %v to %.80q behind %s", v, a.args, mustEnd)
		default:
			if want := a.want(v); want != "" {
				c.fail("%d of %d, %.80q: got %v, want %s", i, len(asks), a.args, v, want)
			}
		}
	}
	if mustEnd != "" {
		if v, ok := c.read(); ok {
			c.fail("goes on with %v behind %s", v, mustEnd)
		}
		return false
	}
	return true
}

// forget: nobody knows what becomes of them.
func (c *stressConn) forget(asks []stressAsk) {
	for i, a := range asks {
		c.s.note("%s %s: %d of %d, %.40q: nobody knows", c.name, c.op, i, len(asks), a.args)
		if a.lost != nil {
			a.lost()
		}
	}
}

// read reads a reply. false: the connection is closed instead, and may be.
func (c *stressConn) read() (stressReply, bool) {
	c.conn.SetReadDeadline(time.Now().Add(90 * time.Second))
	v, err := readStressReply(c.r)
	switch {
	case err == nil:
		return v, true
	case !c.s.st.storming.Load():
		c.fail("%v, and no backend was lost", err)
	case errors.Is(err, os.ErrDeadlineExceeded), !(errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		c.fail("%v", err)
	}
	c.s.st.kinds.add("closed by the proxy")
	return v, false
}

// hasMore says that something arrived, if only the end.
func (c *stressConn) hasMore() bool {
	c.conn.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
	_, err := c.r.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
