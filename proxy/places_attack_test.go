package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"dragontls/proxy/proxytest"
)

// crowd are peers that want all places for handshakes and never finish one.
type crowd struct {
	h       *harness
	r       *rand.Rand
	from    string // the address they come from
	hello   []byte
	stops   bool // its members send a whole ClientHello and stop there; otherwise they dribble one
	members []net.Conn
	sent    []int // by member, of hello
}

func (h *harness) crowd(r *rand.Rand, from string, stops bool) *crowd {
	return &crowd{h: h, r: r, from: from, hello: recordHello(h.t), stops: stops}
}

// arrived is how many sockets the server has seen, whatever became of them.
func (h *harness) arrived() uint64 {
	h.pending.mu.Lock()
	defer h.pending.mu.Unlock()
	return h.pending.accepted
}

// wave lets n more of them come, and those that dribble send one more byte each. It returns when the server has seen them all.
func (c *crowd) wave(n int) {
	c.h.t.Helper()
	before := c.h.arrived()
	for range n {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}}
		conn, err := d.Dial("tcp", c.h.addr)
		if err != nil {
			c.h.t.Fatal(err)
		}
		c.h.t.Cleanup(func() { conn.Close() })
		c.members, c.sent = append(c.members, conn), append(c.sent, 0)
		if c.stops {
			conn.Write(c.hello)
			conn.SetReadDeadline(time.Now().Add(patience))
			conn.Read(make([]byte, 1)) // our flight, or the end
		}
	}
	eventually(c.h.t, "all have arrived", func() bool { return c.h.arrived() >= before+uint64(n) })
	if c.stops {
		return
	}
	for i := 0; i < len(c.members); i++ {
		if c.sent[i] < len(c.hello)-1 {
			if _, err := c.members[i].Write(c.hello[c.sent[i] : c.sent[i]+1]); err == nil {
				c.sent[i]++
				continue
			}
		}
		c.members[i].Close()
		c.members, c.sent = slices.Delete(c.members, i, i+1), slices.Delete(c.sent, i, i+1)
		i--
	}
}

// slow is the net.Conn of a client whose every step lets others go first.
type slow struct {
	net.Conn
	between func(helloSent bool)
	writes  int
}

// The server's answer is waited for first: others must not overtake a ClientHello that has been sent.
func (c *slow) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.between(true)
	return n, err
}

func (c *slow) Write(p []byte) (int, error) {
	c.writes++
	half := len(p) / 2
	c.between(c.writes > 1)
	n, err := c.Conn.Write(p[:half])
	if err != nil {
		return n, err
	}
	c.between(c.writes > 1)
	m, err := c.Conn.Write(p[half:])
	return n + m, err
}

func TestHonestClientsFinishAmongThoseThatNeverDo(t *testing.T) {
	const places = 32
	for _, tt := range []struct {
		name  string
		from  string
		stops bool
		// How many come between two steps of an honest client: until its ClientHello is whole, and in all afterwards;
		// 0: as many as like to.
		first, later int
	}{
		{"dribblers with its address", "127.0.0.1", false, places / 4, 0},
		{"dribblers with another address", "127.0.0.2", false, 0, 0},
		{"stoppers with its address", "127.0.0.1", true, 0, places / 2},
		{"stoppers with another address", "127.0.0.2", true, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.from != "127.0.0.1" && runtime.GOOS != "linux" {
				t.Skip("only Linux has all of 127.0.0.0/8 on loopback")
			}
			eachMode(t, func(t *testing.T, m mode) {
				seed := testSeed(t)
				r := rand.New(rand.NewPCG(seed, 0))
				h := m.start(t, dragonfly(t, proxytest.Options{}).Addr(), func(c *Config) {
					c.MaxHandshakes, c.HandshakeTimeout = places, time.Minute
				})
				c := h.crowd(r, tt.from, tt.stops)
				c.wave(places + r.IntN(places))
				for i := range 3 {
					left := tt.later
					conn := dialRaw(t, h.addr)
					w := newWire(t, tls.Client(&slow{Conn: conn, between: func(helloSent bool) {
						n := r.IntN(2 * places)
						switch {
						case !helloSent && tt.first > 0:
							n = r.IntN(tt.first + 1)
						case helloSent && tt.later > 0:
							n = r.IntN(left + 1)
							left -= n
						}
						c.wave(n)
					}}, testPKI().clientConfig()))
					if _, err := io.WriteString(w, cmd("PING")); err != nil {
						t.Fatalf("TEST_SEED=%d: honest client %d: %v; handshakes %v", seed, i, err, h.Stats().Handshakes)
					}
					w.want("+PONG\r\n")
				}
				if n := h.pending.len(); n > places {
					t.Errorf("%d sockets without a finished handshake, want at most %d", n, places)
				}
			})
		})
	}
}

// Behind a load balancer all clients have one address: it may take every place.
func TestOneAddressMayTakeAllPlaces(t *testing.T) {
	t.Parallel()
	h := start(t, "127.0.0.1:1", func(c *Config) { c.MaxHandshakes, c.HandshakeTimeout = 16, time.Minute })
	for i := range 16 {
		dialRaw(t, h.addr)
		eventually(t, "it has a place", func() bool { return h.pending.len() == i+1 })
	}
	for _, reason := range []string{handshakeEvicted, handshakeEvictedWaiting, handshakeEvictedShare} {
		if n := h.refused(reason); n != 0 {
			t.Errorf("%d refused for %s", n, reason)
		}
	}
}

// Without idle peers to close, newcomers are refused, and the operator reads of it.
func TestNewcomersAreRefusedWhereAllCompute(t *testing.T) {
	t.Parallel()
	h := start(t, redisServer(t), func(c *Config) { c.MaxHandshakes, c.HandshakeTimeout = 2*runtime.GOMAXPROCS(0), time.Minute })
	free := h.occupy()
	c := dialRaw(t, h.addr)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it got an answer")
	}
	if n := h.refused(handshakePlaces); n != 1 {
		t.Errorf("handshakes %v, want one %s", h.Stats().Handshakes, handshakePlaces)
	}
	free()
	h.dial().do("+PONG\r\n", "PING")
	if want := fmt.Sprintf(`"limit":"MAX_HANDSHAKES","count":1,"value":%d`, h.limits[limitHandshakes].Value()); !strings.Contains(h.logs.String(), want) {
		t.Errorf("no line with %s:\n%s", want, h.logs)
	}
}
