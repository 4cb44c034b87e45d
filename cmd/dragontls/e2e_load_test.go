//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load says how much clients ask for.
type load struct {
	pace      time.Duration // between the beginnings of two handshakes, of whichever client; zero: as fast as they go
	benchmark []string      // arguments of redis-benchmark; nil: short rounds of small pipelines
}

// clients are those that connect while certificates are rotated.
type clients struct {
	p         *instance
	load      load
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	begun     time.Time
	full      atomic.Int64
	resumed   atomic.Int64
	errors    atomic.Int64
	rounds    atomic.Int64 // of redis-benchmark
	served    atomic.Value // the serial (string) that the last full handshake saw
	mu        sync.Mutex
	serials   map[string]bool // that may be served; nil: any of the CA's
	firstFail error
}

// crowd starts redis-benchmark in a loop, and beside it clients that do nothing but connect.
func crowd(t testing.TB, p *instance, serial string, load load) *clients {
	t.Helper()
	need(t, "redis-benchmark")
	ctx, cancel := context.WithCancel(t.Context())
	if load.benchmark == nil {
		load.benchmark = []string{"-t", "set,get", "-n", "2000", "-c", "20", "-P", "4"}
	}
	c := &clients{p: p, load: load, cancel: cancel, begun: time.Now(), serials: map[string]bool{serial: true}}
	t.Cleanup(func() { cancel(); c.wg.Wait() })
	turn := c.turns(ctx)
	for range 3 {
		c.wg.Go(func() { c.connect(ctx, p.clientTLS(), turn) })
	}
	resuming := p.clientTLS()
	resuming.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	c.wg.Go(func() { c.connect(ctx, resuming, turn) })
	c.wg.Go(func() { c.benchmark(ctx) })
	return c
}

func (c *clients) allow(serial string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serials[serial] = true
}

// anySerial: who verifies the chain is content, until only says more.
func (c *clients) anySerial() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serials = nil
}

// only: a handshake that begins from now on may see no other.
func (c *clients) only(serial string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serials = map[string]bool{serial: true}
}

func (c *clients) fail(err error) {
	c.errors.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.firstFail == nil {
		c.firstFail = err
	}
}

// turns yields whenever a handshake may begin, and is closed when ctx ends. A turn that nobody takes is lost.
func (c *clients) turns(ctx context.Context) <-chan struct{} {
	turn := make(chan struct{})
	c.wg.Go(func() {
		defer close(turn)
		tick := time.NewTicker(max(c.load.pace, 1))
		defer tick.Stop()
		for ctx.Err() == nil {
			if c.load.pace > 0 {
				<-tick.C
			}
			select {
			case turn <- struct{}{}:
			case <-ctx.Done():
			}
		}
	})
	return turn
}

// connect makes a handshake at each turn. The key of the certificate signs each full one.
func (c *clients) connect(ctx context.Context, config *tls.Config, turn <-chan struct{}) {
	for range turn {
		c.mu.Lock()
		allowed := c.serials // as of before the handshake; it is replaced, or gets more, never less
		c.mu.Unlock()
		st, err := handshake(c.p.addr, config)
		switch {
		case err != nil && ctx.Err() == nil:
			c.fail(err)
		case err != nil:
		case len(st.VerifiedChains) == 0:
			c.fail(errors.New("a handshake without a verified chain"))
		case st.DidResume:
			c.resumed.Add(1)
		default:
			c.full.Add(1)
			serial := st.PeerCertificates[0].SerialNumber.Text(16)
			c.served.Store(serial)
			c.mu.Lock()
			known := allowed == nil || allowed[serial] || c.serials == nil || c.serials[serial]
			c.mu.Unlock()
			if !known {
				c.fail(fmt.Errorf("serial %s is served and neither the old nor the new one", serial))
			}
		}
	}
}

// handshake connects, verifies the chain and gets an answer, so that a client certificate refused would be noticed.
func handshake(addr string, config *tls.Config) (tls.ConnectionState, error) {
	raw, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	return handshakeOver(raw, config)
}

// handshakeOver does what handshake does over a connection that is open, and closes it.
func handshakeOver(raw net.Conn, config *tls.Config) (tls.ConnectionState, error) {
	conn := tls.Client(raw, config)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "*1\r\n$4\r\nPING\r\n"); err != nil {
		return tls.ConnectionState{}, fmt.Errorf("handshake: %w", err)
	}
	answer := make([]byte, 7)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "+PONG\r\n" {
		return tls.ConnectionState{}, fmt.Errorf("PING: %q %w", answer, err)
	}
	return conn.ConnectionState(), nil
}

func (c *clients) benchmark(ctx context.Context) {
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "redis-benchmark", append(append(c.p.flags(), "-q"), c.load.benchmark...)...)
		cmd.Env = environ()
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			return
		}
		if err != nil || bytes.Contains(bytes.ToLower(out), []byte("err")) {
			c.fail(fmt.Errorf("redis-benchmark: %w\n%s", err, out))
		}
		c.rounds.Add(1)
	}
}

// untilServed polls for the serial and returns how long it took.
func (c *clients) untilServed(t testing.TB, serial string, since time.Time) time.Duration {
	t.Helper()
	config := c.p.clientTLS()
	eventually(t, "the new certificate is served", func() bool {
		st, err := handshake(c.p.addr, config)
		if err != nil {
			t.Fatal(err)
		}
		return st.PeerCertificates[0].SerialNumber.Text(16) == serial
	})
	return time.Since(since)
}

// untilBusy returns when clients of every kind have got through once more.
func (c *clients) untilBusy(t testing.TB) {
	t.Helper()
	full, resumed, rounds := c.full.Load(), c.resumed.Load(), c.rounds.Load()
	eventually(t, "clients of every kind get through", func() bool {
		return c.full.Load() > full && c.resumed.Load() > resumed && c.rounds.Load() > rounds
	})
}

// stop ends the load and says what it was.
func (c *clients) stop(t testing.TB, rotations int, worst time.Duration) {
	t.Helper()
	eventually(t, "as many handshakes of each kind as rotations", func() bool {
		return c.errors.Load() > 0 || c.full.Load() >= int64(rotations) && c.resumed.Load() >= int64(rotations)
	})
	seconds := time.Since(c.begun).Seconds()
	c.cancel()
	c.wg.Wait()
	full, resumed := c.full.Load(), c.resumed.Load()
	t.Logf("%d rotations in %.1f s: %d full and %d resumed handshakes, %.0f a second, and %d rounds of redis-benchmark: %d errors; worst delay %d ms",
		rotations, seconds, full, resumed, float64(full+resumed)/seconds, c.rounds.Load(), c.errors.Load(), worst.Milliseconds())
	if n := c.errors.Load(); n > 0 {
		t.Errorf("%d clients failed; the first: %v", n, c.firstFail)
	}
}
