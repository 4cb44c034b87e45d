//go:build unix

package main

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The error by which commands are answered that found no backend.
const textUnsent = "-LOADING dragontls: backend unavailable, the command was not sent"

// crew is sessions that send a pipeline after the other and check each reply: every command is answered once and in its
// place, and behind the first error of ours there are only such errors in a pipeline. Where the backend is killed, a
// pipeline may also end with its connection, and the rider comes back, as client libraries do.
type crew struct {
	proxy   *instance
	all     []*rider
	kills   bool          // the backend is killed
	pause   time.Duration // of a session between two pipelines
	stop    chan struct{}
	wg      sync.WaitGroup
	round   atomic.Int64 // pipelines, of all
	replies atomic.Int64
	lost    atomic.Int64 // pipelines that ended with their connection
	unsent  atomic.Int64

	mu        sync.Mutex
	firstFail error
	fails     int
}

// rider is one session of a crew.
type rider struct {
	crew  *crew
	id    int
	db    string
	resp3 bool
	state bool // it has a database, protocol and name of its own

	good atomic.Int64 // pipelines without an error
	bad  atomic.Int64

	mu sync.Mutex // held for a pipeline
	// guarded by mu
	longest time.Duration // that a pipeline took
	conn    net.Conn
	r       *bufio.Reader
	seq     int
}

// riders starts sessions; with state each has its database, protocol and name, they pause less, and the backend may be killed.
func riders(t testing.TB, p *instance, n int, state bool) *crew {
	t.Helper()
	c := &crew{proxy: p, kills: state, pause: 10 * time.Millisecond, stop: make(chan struct{})}
	t.Cleanup(func() {
		select {
		case <-c.stop:
		default:
			close(c.stop)
		}
		for _, r := range c.all {
			r.conn.Close()
		}
		c.wg.Wait()
	})
	for id := range n {
		r := &rider{crew: c, id: id, db: "0", state: state}
		if state {
			r.db, r.resp3 = fmt.Sprint(id%4), id%2 == 1
		}
		if err := r.connect(); err != nil {
			t.Fatal(err)
		}
		c.all = append(c.all, r)
	}
	if state {
		c.pause = time.Millisecond
	}
	for _, r := range c.all {
		c.wg.Go(r.ride) // ends with stop, which Cleanup closes
	}
	return c
}

func (r *rider) name() string { return fmt.Sprint("rider-", r.id) }

// connect opens the rider's connection and sets its state.
func (r *rider) connect() error {
	raw, err := net.DialTimeout("tcp", r.crew.proxy.addr, patience)
	if err != nil {
		return err
	}
	if r.conn != nil {
		r.conn.Close()
	}
	r.conn = tls.Client(raw, r.crew.proxy.clientTLS())
	r.r = bufio.NewReader(r.conn)
	if !r.state {
		return nil
	}
	if r.resp3 {
		err = r.ask("%", "HELLO", "3")
	}
	return cmp.Or(err, r.ask("+OK", "SELECT", r.db), r.ask("+OK", "CLIENT", "SETNAME", r.name()))
}

// comeBack connects until it has worked or the crew stops.
func (r *rider) comeBack() {
	for r.connect() != nil {
		select {
		case <-r.crew.stop:
			return
		case <-time.After(r.crew.pause):
		}
	}
}

func (r *rider) want(t testing.TB, want string, command ...string) {
	t.Helper()
	if err := r.ask(want, command...); err != nil {
		t.Error(err)
	}
}

func (r *rider) ask(want string, command ...string) error {
	r.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(r.conn, array(command...)); err != nil {
		return fmt.Errorf("rider %d: %w", r.id, err)
	}
	got, err := readReply(r.r)
	if err != nil || got != want && !(want == "%" && strings.HasPrefix(got, want)) {
		return fmt.Errorf("rider %d: %v: got %.100q (%v), want %q", r.id, command, got, err, want)
	}
	return nil
}

// readReply returns a bulk's content behind "$", an aggregate's parts behind its header, and any other line as it is.
func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return "", errors.New("an empty line")
	}
	var n int
	fmt.Sscan(line[1:], &n)
	switch line[0] {
	case '$', '=':
		if n < 0 {
			return line, nil
		}
		text := make([]byte, n+2)
		_, err = io.ReadFull(r, text)
		return "$" + string(text[:n]), err
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range n {
			part, err := readReply(r)
			if err != nil {
				return "", err
			}
			line += " " + part
		}
	}
	return line, nil
}

func (r *rider) ride() {
	for {
		select {
		case <-r.crew.stop:
			return
		default:
		}
		r.mu.Lock()
		err := r.pipeline()
		if r.crew.kills && ended(err) {
			r.crew.lost.Add(1)
			r.bad.Add(1)
			r.comeBack()
			err = nil
		}
		r.mu.Unlock()
		if err != nil {
			r.crew.fail(fmt.Errorf("rider %d: %w", r.id, err))
			return
		}
		time.Sleep(r.crew.pause)
	}
}

// ended reports whether err is the end of a connection.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// pipeline sends ECHO, SET, GET four times: what SET was told, GET returns.
func (r *rider) pipeline() error {
	var out strings.Builder
	first := r.seq
	key := r.name()
	for range 4 {
		r.seq++
		word := fmt.Sprint(r.id, ":", r.seq)
		out.WriteString(array("ECHO", word) + array("SET", key, word) + array("GET", key))
	}
	begun := time.Now()
	r.conn.SetDeadline(begun.Add(patience))
	if _, err := io.WriteString(r.conn, out.String()); err != nil {
		return err
	}
	failed := ""
	for seq := first + 1; seq <= r.seq; seq++ {
		word := fmt.Sprint("$", r.id, ":", seq)
		for _, want := range []string{word, "+OK", word} {
			got, err := readReply(r.r)
			if err != nil {
				return fmt.Errorf("for %s: %w", want, err)
			}
			r.crew.replies.Add(1)
			switch got {
			case textUnsent:
				r.crew.unsent.Add(1)
				failed = got
			case want:
				if failed != "" {
					return fmt.Errorf("got %q behind %q in one pipeline", got, failed)
				}
			default:
				return fmt.Errorf("got %q, want %q", got, want)
			}
		}
	}
	r.longest = max(r.longest, time.Since(begun))
	r.crew.round.Add(1)
	if failed == "" {
		r.good.Add(1)
	} else {
		r.bad.Add(1)
	}
	return nil
}

func (c *crew) fail(err error) {
	select {
	case <-c.stop:
		return
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fails++
	if c.firstFail == nil {
		c.firstFail = err
	}
}

func (c *crew) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.firstFail == nil {
		return nil
	}
	return fmt.Errorf("%d of %d sessions failed, the first: %w", c.fails, len(c.all), c.firstFail)
}

// until polls, and ends the test once a session has failed.
func (c *crew) until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := c.failed(); err != nil {
			t.Fatal(err)
		}
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s; %s", what, c)
}

// more waits until each session has got through n more pipelines without an error.
func (c *crew) more(t testing.TB, n int64) {
	t.Helper()
	before := c.good()
	c.until(t, "every session works", func() bool { return beyond(c.good(), before, n) })
}

func (c *crew) good() (counts []int64) {
	for _, r := range c.all {
		counts = append(counts, r.good.Load())
	}
	return counts
}

func (c *crew) bad() (counts []int64) {
	for _, r := range c.all {
		counts = append(counts, r.bad.Load())
	}
	return counts
}

// longest is what each session's longest wait for a pipeline was since this was last asked, in order.
func (c *crew) longest() (waits []time.Duration) {
	for _, r := range c.all {
		r.mu.Lock()
		waits = append(waits, r.longest.Round(time.Millisecond))
		r.longest = 0
		r.mu.Unlock()
	}
	slices.Sort(waits)
	return waits
}

func beyond(now, before []int64, n int64) bool {
	for i := range now {
		if now[i] < before[i]+n {
			return false
		}
	}
	return true
}

// wantState wants that each session has its database, protocol and name still: on lanes, and on a connection of its own,
// which KEYS makes it open.
func (c *crew) wantState(t testing.TB, backend *redis) {
	t.Helper()
	marks := map[string]int{}
	for _, r := range c.all {
		r.mu.Lock()
		defer r.mu.Unlock()
		null, empty := r.nulls()
		r.want(t, null, "GET", "nothing")
		r.want(t, empty, "HGETALL", "nothing")
		r.want(t, "+OK", "SET", fmt.Sprint("mark:", r.id), "1")
		r.want(t, "*0", "KEYS", "nothing")
		marks[r.db]++
	}
	own := map[string]string{} // by name
	for _, line := range backend.clients() {
		own[field(line, "name")] = field(line, "db") + " " + field(line, "resp")
	}
	for _, r := range c.all {
		protocol := "2"
		if r.resp3 {
			protocol = "3"
		}
		if got, want := own[r.name()], r.db+" "+protocol; got != want {
			t.Errorf("%s: its own connection has database and protocol %q, want %q", r.name(), got, want)
		}
	}
	for db, n := range marks {
		if got := len(strings.Fields(backend.observe("-n", db, "KEYS", "mark:*"))); got != n {
			t.Errorf("database %s has the keys of %d sessions, want %d", db, got, n)
		}
	}
}

// wantNames asks for the names as the client sees them, which binds the sessions to connections of their own.
func (c *crew) wantNames(t testing.TB) {
	t.Helper()
	for _, r := range c.all {
		r.mu.Lock()
		null, _ := r.nulls()
		r.want(t, "$"+r.name(), "CLIENT", "GETNAME")
		r.want(t, null, "GET", "nothing")
		r.mu.Unlock()
	}
}

func (r *rider) nulls() (null, emptyMap string) {
	if r.resp3 {
		return "_", "%0"
	}
	return "$-1", "*0"
}

// field is one of a line of CLIENT LIST.
func field(line, name string) string {
	for _, f := range strings.Fields(line) {
		if value, ok := strings.CutPrefix(f, name+"="); ok {
			return value
		}
	}
	return ""
}

// end stops the sessions, none of which may have failed.
func (c *crew) end(t testing.TB) {
	t.Helper()
	close(c.stop)
	c.wg.Wait()
	if err := c.failed(); err != nil {
		t.Error(err)
	}
}

func (c *crew) String() string {
	return fmt.Sprintf("%d sessions, %d pipelines, %d replies, %d of them not sent; %d pipelines ended with their connection", len(c.all), c.round.Load(), c.replies.Load(), c.unsent.Load(), c.lost.Load())
}
