//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	honestSessions = 4 + 2 + 3 // live ones, and those that connect
	// A phase ends after so many handshakes of clients nearby.
	handshakesPerPhase = 60
	livePace           = 5 * time.Millisecond // between two commands of a session
	connectPace        = 100 * time.Millisecond
	farTrip            = 100 * time.Millisecond
)

// What honest clients do: commands on sessions that stay, and full handshakes with a command, from nearby and from far away.
const (
	kindCommand   = "command"
	kindHandshake = "handshake"
	kindFar       = "far"
)

var victimKinds = []string{kindCommand, kindHandshake, kindFar}

// figures holds how long things took in the quiet phases, or in those under attack, in microseconds.
type figures struct {
	mu   sync.Mutex
	took map[string][]float64
}

func (f *figures) add(kind string, d time.Duration) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.took == nil {
		f.took = map[string][]float64{}
	}
	f.took[kind] = append(f.took[kind], float64(d.Microseconds()))
	return len(f.took[kind])
}

// victims are honest clients that keep a steady pace. Their identity is not the attackers'.
type victims struct {
	t       testing.TB
	p       *instance
	config  *tls.Config
	now     atomic.Pointer[figures] // of this phase; nil: between two
	connect atomic.Int64            // handshakes from nearby, in this phase
	cancel  context.CancelFunc
	all     sync.WaitGroup

	mu        sync.Mutex
	failures  int
	firstFail error
}

func newVictims(p *instance, protocol string) *victims {
	ctx, cancel := context.WithCancel(context.Background())
	v := &victims{t: p.t, p: p, config: p.clientTLS(), cancel: cancel}
	p.t.Cleanup(v.stop)
	for i := range 4 {
		v.all.Go(func() { v.ask(ctx, fmt.Sprint("victim-", i), protocol) })
	}
	for range 2 {
		v.all.Go(func() { v.connecting(ctx, kindHandshake, func(c net.Conn) net.Conn { return c }) })
	}
	for range 3 {
		v.all.Go(func() { v.connecting(ctx, kindFar, func(c net.Conn) net.Conn { return &far{Conn: c, trip: farTrip} }) })
	}
	return v
}

// stop ends all of them.
func (v *victims) stop() {
	v.cancel()
	v.all.Wait()
}

// during collects the figures of a phase.
func (v *victims) during(f *figures) {
	v.t.Helper()
	v.connect.Store(0)
	v.now.Store(f)
	eventually(v.t, "honest clients connect", func() bool { return v.connect.Load() >= handshakesPerPhase })
	v.now.Store(nil)
}

// measure times what an honest client does. It counts for the phase in which it began.
func (v *victims) measure(ctx context.Context, kind string, act func() error) error {
	phase, begun := v.now.Load(), time.Now()
	err := act()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.failures++; v.firstFail == nil {
			v.firstFail = fmt.Errorf("%s, after %v: %w", kind, time.Since(begun).Round(time.Millisecond), err)
		}
	case phase != nil:
		phase.add(kind, time.Since(begun))
		if kind == kindHandshake {
			v.connect.Add(1)
		}
	}
	return err
}

// connecting makes full handshakes until ctx ends.
func (v *victims) connecting(ctx context.Context, kind string, over func(net.Conn) net.Conn) {
	tick := time.NewTicker(connectPace)
	defer tick.Stop()
	for ctx.Err() == nil {
		v.measure(ctx, kind, func() error {
			raw, err := net.DialTimeout("tcp", v.p.addr, patience)
			if err != nil {
				return err
			}
			_, err = handshakeOver(over(raw), v.config)
			return err
		})
		<-tick.C
	}
}

// ask keeps a session that asks for its own key until ctx ends. If the session is closed, ask connects again.
func (v *victims) ask(ctx context.Context, key, protocol string) {
	tick := time.NewTicker(livePace)
	defer tick.Stop()
	for ctx.Err() == nil {
		raw, err := net.DialTimeout("tcp", v.p.addr, patience)
		if err != nil {
			v.measure(ctx, kindCommand, func() error { return err })
			return
		}
		conn := tls.Client(raw, v.config)
		s := &victim{Conn: conn, r: bufio.NewReader(conn)}
		err = v.measure(ctx, kindCommand, func() error {
			if _, err := s.do("HELLO", protocol); err != nil {
				return err
			}
			return s.want("+OK", "SET", key, key)
		})
		for n := 0; err == nil && ctx.Err() == nil; n++ {
			<-tick.C
			err = v.measure(ctx, kindCommand, func() error {
				if n%2 == 0 {
					return s.want("+PONG", "PING")
				}
				return s.want("$"+key, "GET", key)
			})
		}
		conn.Close()
	}
}

// victim is a session.
type victim struct {
	net.Conn
	r *bufio.Reader
}

func (s *victim) do(command ...string) (string, error) {
	s.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(s, array(command...)); err != nil {
		return "", err
	}
	for {
		// A push may come before the reply while the session has a connection of its own, as without a proxy.
		if reply, err := readReply(s.r); err != nil || reply[0] != '>' {
			return reply, err
		}
	}
}

func (s *victim) want(want string, command ...string) error {
	if got, err := s.do(command...); err != nil || got != want {
		return fmt.Errorf("%v: got %q (%w), want %q", command, got, err, want)
	}
	return nil
}

// far is the net.Conn of a client whose server answers no sooner than after a round trip.
type far struct {
	net.Conn
	trip time.Duration
	due  time.Time
}

func (c *far) Write(p []byte) (int, error) {
	c.due = time.Now().Add(c.trip)
	return c.Conn.Write(p)
}

func (c *far) Read(p []byte) (int, error) {
	time.Sleep(time.Until(c.due))
	return c.Conn.Read(p)
}
