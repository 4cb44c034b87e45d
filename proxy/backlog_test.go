package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"

	"dragontls/proxy/netio"
)

// slowReader is a client on a lane of one TLS version.
func (h *harness) slowReader(version uint16, keys io.Writer) (c *tls.Conn, raw net.Conn) {
	h.t.Helper()
	raw, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	conf := testPKI().clientConfig()
	conf.MaxVersion, conf.KeyLogWriter = version, keys
	c = tls.Client(raw, conf)
	if err := c.Handshake(); err != nil {
		h.t.Fatal(err)
	}
	return c, raw
}

func TestClientThatStopsReadingHoldsUpNobodyOnItsLane(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newLaneBackend(t)
			value := bulk(strings.Repeat("x", 4000))
			b.on(func(_ *laneConn, args []string) (string, bool) { return value, args[len(args)-1] == "some" })
			h, gates := b.startGated(nil)
			c, _ := h.slowReader(version, nil)
			slow, other := newWire(t, c), h.dial()
			slow.get("0")
			other.get("1")
			gates.of(slow).Stop()
			const asked = 50
			for range asked {
				slow.send(cmd("GET", "some"))
				other.get("k") // which comes behind it
			}
			if b.lanes() != 1 || h.lane().stateNow() != laneOpen {
				t.Errorf("%d lanes, the first is in state %v", b.lanes(), h.lane().stateNow())
			}
			eventually(t, "what has come waits", h.sessionOf(slow).client.sock.Stuck)
			gates.of(slow).Open()
			slow.wantLong(strings.Repeat(value, asked))
			slow.get("goes on")
			eventually(t, "nothing is lent", func() bool { return h.buffers.Lent() == 0 })
		})
	}
}

// takeTurn has the caller write to the client, in the place of a lane's reader.
func (s *session) takeTurn(t testing.TB) writeTurn {
	t.Helper()
	q := &s.queue
	eventually(t, "nobody writes", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.turn {
			return false
		}
		q.turn = true
		return true
	})
	return writeTurn{s}
}

// The answers to KeyUpdate wait in the backlog, not under the lock that whoever writes to the client needs.
func TestKeyUpdatesOfAClientThatStopsReadingHoldUpNoWriter(t *testing.T) {
	t.Parallel()
	b := newLaneBackend(t)
	h, gates := b.startGated(func(c *Config) { c.TLS.MinVersion = tls.VersionTLS13 })
	var keys bytes.Buffer
	c, raw := h.slowReader(tls.VersionTLS13, &keys)
	w := newWire(t, c)
	if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("the KeyUpdates are made for AES-128-GCM, which this machine does not prefer")
	}
	_, rest, _ := strings.Cut(keys.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	line, _, _ := strings.Cut(rest, "\n")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	s := h.sessionOf(w)
	sock := s.client.sock
	turn := s.takeTurn(t)
	gates.of(w).Stop()
	sent := bytes.Repeat([]byte("sent before "), 300)
	if err := turn.writeNow(sent); err != nil {
		t.Fatal(err)
	}
	const n = 10 // crypto/tls takes 16 without a byte of the client between them
	flood := keyUpdates(t, secret, n)
	for i := range n {
		before, size := sock.Backlog(), len(flood)/n
		if _, err := raw.Write(flood[i*size : (i+1)*size]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is answered, and the answer waits in the backlog", func() bool { return sock.Backlog() > before })
	}
	if err := turn.writeNow([]byte("behind them")); err != nil {
		t.Fatal(err)
	}
	gates.of(w).Open()
	w.wantLong(string(sent) + "behind them")
	if err := sock.Flush(); err != nil {
		t.Fatal(err)
	}
	turn.drop() // gives the turn back
}

func TestWhatALanesReaderLeavesToAWriter(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		size    int
		pending bool
		left    bool
	}{
		"nothing":           {0, false, false},
		"what fits":         {netio.MaxWriteNow, false, false},
		"more":              {netio.MaxWriteNow + 1, false, true},
		"many buffers":      {3 * netio.ChunkSize, false, true},
		"behind a backlog":  {1, true, true},
		"none, but backlog": {0, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, gates := newLaneBackend(t).startGated(nil)
			w := h.dial()
			w.get("0")
			s := h.sessionOf(w)
			turn := s.takeTurn(t)
			want := ""
			if tt.pending {
				gates.of(w).Stop()
				want = strings.Repeat("a", 4000)
				if err := turn.writeNow([]byte(want)); err != nil {
					t.Fatal(err)
				}
			}
			reply := strings.Repeat("b", tt.size)
			q := &s.queue
			q.mu.Lock()
			q.out.writers++
			q.out.append(s.account(), []byte(reply))
			q.mu.Unlock()
			left := turn.writeOutbox(false)
			if left != tt.left {
				t.Errorf("left to a writer: %v", left)
			}
			if left {
				q.mu.Lock()
				if q.out.size != tt.size || !q.turn || q.out.writers != 1 {
					t.Errorf("%d bytes of %d, turn %v, %d writers", q.out.size, tt.size, q.turn, q.out.writers)
				}
				q.mu.Unlock()
				go turn.drain() // ends with what there is, finish waits for it
			}
			gates.of(w).Open()
			w.wantLong(want + reply)
			eventually(t, "the turn is free", func() bool { return !s.hasWriters() && s.settledNow() })
			w.get("goes on")
		})
	}
}
