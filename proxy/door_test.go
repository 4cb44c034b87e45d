package proxy

import (
	"crypto"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/netio"
	"dragontls/proxy/proxytest"
)

// However many clients come at once, none is turned away because it waits for us: those for whom there is no place wait to be
// accepted.
func TestAStormOfHandshakesTurnsNobodyAway(t *testing.T) {
	t.Parallel()
	const places, clients = 16, 200
	eachMode(t, func(t *testing.T, m mode) {
		h := m.start(t, dragonflyAt(t, proxytest.Options{}).Addr(), func(c *Config) {
			c.MaxHandshakes, c.doorTimeout = places, patience
		})
		var failed atomic.Int64
		var all sync.WaitGroup
		begin := make(chan struct{})
		for range clients {
			all.Go(func() {
				<-begin
				c, err := tls.Dial("tcp", h.addr, testPKI().clientConfig())
				if err == nil {
					defer c.Close()
					c.SetDeadline(time.Now().Add(patience))
					if _, err = io.WriteString(c, cmd("PING")); err == nil {
						_, err = io.ReadFull(c, make([]byte, len("+PONG\r\n")))
					}
				}
				if err != nil && failed.Add(1) == 1 {
					t.Error(err)
				}
			})
		}
		close(begin)
		all.Wait()
		if n := failed.Load(); n > 0 || h.refused(handshakeOK) != clients {
			t.Errorf("%d of %d clients failed; handshakes %v", n, clients, h.Stats().Handshakes)
		}
		if h.Stats().HandshakesWaited == 0 {
			t.Error("nobody waited for one of the places")
		}
		if n := h.limitOf("max_handshakes").Reached; n != h.Stats().HandshakesWaited {
			t.Errorf("the limit was reached %d times, and %d sockets waited", n, h.Stats().HandshakesWaited)
		}
		if !strings.Contains(h.logs.String(), `"limit":"MAX_HANDSHAKES"`) {
			t.Error("the log does not tell")
		}
	})
}

// arrival is a handshake whose socket no goroutine reads.
func (p *places) arrival(t *testing.T) (h *handshake, peer net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer = dialRaw(t, ln.Addr().String())
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	sock, err := netio.NewSocket(conn, netio.NewBuffers(0).NewAccount(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return &handshake{server: &Server{pending: p}, sock: sock, from: addressOf(1)}, peer
}

// entry is what becomes of a newcomer.
type entry struct {
	loser *handshake
	ok    bool
}

func (p *places) entering(h *handshake) chan entry {
	done := make(chan entry, 1)
	go func() {
		loser, ok := p.enter(h, nil)
		done <- entry{loser, ok}
	}()
	return done
}

func TestWhoeverHasSentItsFlightKeepsItsPlace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		reads func(p *places, h *handshake)
		loses bool
	}{
		{"a whole ClientHello", func(p *places, h *handshake) { p.take(h) }, false},
		{"a part of one", func(p *places, h *handshake) { p.stop(h, true) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlaces(1, 1)
			p.door.most = time.Hour // for the longest wait; nothing is left of it, so that a silent peer goes at once
			h, peer := p.arrival(t)
			if _, ok := p.add(h); !ok {
				t.Fatal("no place")
			}
			if _, err := peer.Write([]byte{22}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it has arrived", h.sock.Readable)
			newcomer := &handshake{server: h.server, from: addressOf(2)}
			entered := p.entering(newcomer)
			eventually(t, "the newcomer waits", func() bool { return p.newcomersWaited() == 1 })
			select {
			case e := <-entered:
				t.Fatalf("the newcomer did not wait: %+v", e)
			default:
			}
			tt.reads(p, h)
			e := <-entered
			if (e.loser == h) != tt.loses || e.ok != tt.loses {
				t.Errorf("got %+v, and its place was lost for %q", e, p.lostBy(h))
			}
		})
	}
}

// Newcomers wait only as long as handshakes succeed.
func TestPeersThatNeverFinishWearTheDoorOut(t *testing.T) {
	t.Parallel()
	p := newPlaces(1, 1)
	var now clock.Atomic
	p.now = now.Load
	p.door = door{most: time.Hour, left: time.Hour}
	next := func() *handshake { return &handshake{server: &Server{pending: p}, from: addressOf(1)} }
	computes := next()
	p.add(computes)
	p.take(computes)

	waits := next()
	entered := p.entering(waits)
	eventually(t, "it waits", func() bool { return p.newcomersWaited() == 1 })
	now.Store(now.Load().Add(2 * time.Hour))
	p.mu.Lock()
	p.change()
	p.mu.Unlock()
	if e := <-entered; e.ok || e.loser != nil {
		t.Errorf("beyond all patience it was not refused: %+v", e)
	}
	if _, ok := p.enter(next(), nil); ok || p.newcomersWaited() != 1 {
		t.Errorf("at a door that is worn out one got in, or waited (%d)", p.newcomersWaited())
	}
	if !p.finish(computes) || p.door.left != doorPay {
		t.Errorf("a handshake that has succeeded pays for %v, want %v", p.door.left, doorPay)
	}
	silent := next()
	if _, ok := p.enter(silent, nil); !ok {
		t.Fatal("a place is free")
	}
	silent.mute = true
	now.Store(now.Load().Add(2 * silentAfter))
	if loser, ok := p.enter(next(), nil); !ok || loser != silent || p.newcomersWaited() != 1 {
		t.Errorf("nobody waits for a peer that is silent for long: %v, %v", ok, loser == silent)
	}
}

// signer counts the signatures that it makes.
type signer struct {
	crypto.Signer
	made atomic.Int64
}

func (s *signer) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.made.Add(1)
	return s.Signer.Sign(r, digest, opts)
}

func TestNothingIsSignedForClientsThatHaveLeft(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(c *net.TCPConn){
		"in good order": func(c *net.TCPConn) { c.Close() },
		"with a reset":  func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const clients = 5
			key := &signer{Signer: testPKI().server.PrivateKey.(crypto.Signer)}
			h := start(t, "127.0.0.1:1", func(c *Config) {
				c.TLS.Certificates[0].PrivateKey = key
			})
			free := h.occupy()
			for range clients {
				c := dialRaw(t, h.addr)
				c.Write(recordHello(t))
				leave(c)
			}
			eventually(t, "they wait, or it has seen that they left", func() bool {
				return h.pending.at(stageQueued)+int(h.refused(handshakeClosed)) == clients
			})
			eventually(t, "their ends are here", func() bool {
				for _, o := range h.pending.all() {
					if o.sock == nil {
						continue
					}
					if fin, broken := o.sock.HungUp(); !fin && !broken {
						return false
					}
				}
				return true
			})
			free()
			eventually(t, "all is over", func() bool { return h.refused(handshakeClosed) == clients })
			if n := key.made.Load(); n > 0 {
				t.Errorf("%d signatures were made", n)
			}
		})
	}
}
