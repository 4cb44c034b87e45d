package proxy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"dragontls/proxy/netio"
)

func addressOf(n int) netip.Prefix {
	return originOf(&net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(n))})
}

// placed gives a handshake from an address a place at a stage, and returns who lost one for it.
func (p *places) placed(t testing.TB, from int, s stage) (h, loser *handshake) {
	t.Helper()
	h = &handshake{server: &Server{pending: p}, from: addressOf(from)}
	loser, ok := p.add(h)
	if !ok {
		return nil, nil
	}
	p.move(h, s)
	return h, loser
}

func (p *places) move(h *handshake, s stage) {
	switch s {
	case stageWaiting:
		p.take(h)
		h.stopWork()
	case stageQueued, stageComputing:
		p.take(h)
	}
}

func TestWhoLosesAPlace(t *testing.T) {
	const letters = "-hwqc" // by stage
	// Each word of held is an address and a stage, oldest first; from is the newcomer's address.
	for _, tt := range []struct {
		name   string
		held   string
		from   int
		loser  int // in held; -1: the newcomer gets no place
		reason string
	}{
		{"the oldest without a ClientHello", "1w 1h 1h 1w 1h 1h 1h 1h", 1, 1, handshakeEvicted},
		{"the oldest that waits, where all do", "1w 1w 1w 1w 1w 1w 1w 1w", 1, 0, handshakeEvictedWaiting},
		{"newcomers have time for their ClientHello", "1w 1w 1w 1w 1w 1w 1w 1h", 1, 0, handshakeEvictedWaiting},
		{"but for a quarter of the idle places only", "1w 1w 1w 1w 1w 1h 1h 1h", 1, 5, handshakeEvicted},
		{"nobody who computes", "1c 1c 1w 1w 1w 1w 1w 1w", 1, 2, handshakeEvictedWaiting},
		{"nobody who waits for us", "1c 1c 1q 1q 1q 1q 1q 1q", 1, -1, ""},
		{"nobody who nearly got through, where most compute", "1w 1w 1c 1c 1q 1q 1q 1q", 1, -1, ""},
		{"whoever is late where most compute", "1w 1w 1c 1c 1q 1q 1q 1h", 1, 7, handshakeEvicted},
		{"an address beyond its share", "2h 2h 1w 1w 1w 1w 1w 3h", 3, 2, handshakeEvictedShare},
		{"the one with most", "1h 1h 1h 2h 2h 2h 2h 3h", 3, 3, handshakeEvictedShare},
		{"an address with its share replaces its own", "2h 2h 1h 1h 1h 1h 1h 1h", 2, 0, handshakeEvicted},
		{"an address that floods replaces its own", "2h 2w 1w 1w 1w 1w 1w 1w", 1, 2, handshakeEvictedWaiting},
		{"nobody is beyond its share", "1h 1h 2w 2w 3w 3w 4w 4w", 5, 2, handshakeEvictedWaiting},
		{"the youngest in the queue of an address beyond its share", "1c 1c 1q 1q 1q 1q 1q 1q", 2, 7, handshakeEvictedShare},
		{"the idle of an address beyond its share first", "1c 1c 1q 1q 1q 1q 1h 1q", 2, 6, handshakeEvictedShare},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlaces(8, 2)
			var all []*handshake
			for i := 0; i < len(tt.held); i += 3 {
				h := &handshake{server: &Server{pending: p}, from: addressOf(int(tt.held[i] - '0'))}
				if _, ok := p.add(h); !ok {
					t.Fatal("no place")
				}
				all = append(all, h)
			}
			for _, s := range []stage{stageWaiting, stageComputing, stageQueued} { // waiting ones first: they need a slot
				for i, h := range all {
					if letters[s] == tt.held[3*i+1] {
						p.move(h, s)
					}
				}
			}
			for i, h := range all {
				if letters[h.stage] != tt.held[3*i+1] {
					t.Fatalf("%d is at stage %d", i, h.stage)
				}
			}
			_, loser := p.placed(t, tt.from, stageHello)
			want := -1
			if loser != nil {
				want = slices.Index(all, loser)
			}
			if want != tt.loser {
				t.Fatalf("%d loses its place, want %d", want, tt.loser)
			}
			if loser != nil && p.lostBy(loser) != tt.reason {
				t.Errorf("for %s, want %s", p.lostBy(loser), tt.reason)
			}
		})
	}
}

// consistent checks what must hold between any two steps.
func (p *places) consistent(t *testing.T) {
	t.Helper()
	var of [stageComputing + 1]int
	held := map[*origin]int{}
	for h := range p.held {
		of[h.stage]++
		held[h.origin]++
		if s := h.stage; s == stageHello || s == stageWaiting {
			if a := p.idle.of(h); a.all[h.index[everywhere]] != h {
				t.Fatal("an idle handshake is not where it says")
			}
			if a := h.origin.idle.of(h); a.all[h.index[ofOrigin]] != h {
				t.Fatal("an idle handshake is not in its origin")
			}
		}
	}
	queued, crowded := 0, 0
	for from, o := range p.origins {
		if held[o] != o.held || o.held == 0 || o.from != from || (o.turn != nil) != (o.queued.len() > 0) {
			t.Fatalf("origin %+v holds %d", o, held[o])
		}
		if queued += o.queued.len(); o.held > p.share() {
			crowded++
			if !slices.Contains(p.crowded, o) {
				t.Fatal("a crowded origin is not listed")
			}
		}
	}
	if len(p.held) > p.max || of[stageGone] > 0 || p.computing != of[stageComputing] || p.computing > p.slots || queued != of[stageQueued] ||
		p.idle.hello.Len() != of[stageHello] || p.idle.waiting.Len() != of[stageWaiting] || crowded != len(p.crowded) || len(held) != len(p.origins) {
		t.Fatalf("places %+v, stages %v", p, of)
	}
	if queued > 0 && p.computing < p.slots {
		t.Fatal("a slot is free while handshakes wait for one")
	}
	for _, a := range []*ages{&p.idle.hello, &p.idle.waiting} {
		for _, h := range a.all {
			if h.number < a.all[0].number {
				t.Fatal("the oldest is not on top")
			}
		}
	}
}

func TestPlacesStayConsistent(t *testing.T) {
	seed := testSeed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		p := newPlaces(1+r.IntN(20), 1+r.IntN(4))
		s := &Server{pending: p}
		addresses := 1 + r.IntN(6)
		var live []*handshake
		for step := range 400 {
			if len(live) == 0 || r.IntN(3) == 0 {
				h := &handshake{server: s, from: addressOf(r.IntN(addresses))}
				before := len(p.held)
				loser, ok := p.add(h)
				if ok {
					live = append(live, h)
				}
				if before < p.max && (loser != nil || !ok) {
					t.Fatalf("seed %d, step %d: somebody lost a place while one was free", seed, step)
				}
				if loser != nil && (loser.stage != stageGone || p.lostBy(loser) == "") {
					t.Fatalf("seed %d, step %d: the loser is at stage %d for %q", seed, step, loser.stage, loser.lost)
				}
			} else {
				i := r.IntN(len(live))
				h := live[i]
				switch stage, gone := h.stage, h.stage == stageGone; r.IntN(4) {
				case 0:
					if p.remove(h) == gone {
						t.Fatalf("seed %d, step %d: remove tells the opposite", seed, step)
					}
					live = slices.Delete(live, i, i+1)
				case 1:
					if stage != stageQueued {
						if _, err := p.take(h); (err != nil) != gone {
							t.Fatalf("seed %d, step %d: take says %v of stage %d", seed, step, err, stage)
						}
					}
				case 2:
					h.stopWork()
				case 3:
					if stage == stageQueued {
						p.taken(h, os.ErrDeadlineExceeded)
						<-h.wake
					}
				}
			}
			// What a goroutine in the queue would take.
			for _, h := range live {
				if h.wake != nil && h.stage != stageQueued {
					select {
					case <-h.wake:
					default:
					}
				}
			}
			p.consistent(t)
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

func TestSlotsAreGivenToAddressesInTurn(t *testing.T) {
	p := newPlaces(100, 1)
	first, _ := p.placed(t, 1, stageComputing)
	name := map[*handshake]string{}
	for i := range 6 {
		h, _ := p.placed(t, 1, stageQueued)
		name[h] = fmt.Sprintf("a%d", i)
	}
	for i := range 2 {
		h, _ := p.placed(t, 2, stageQueued)
		name[h] = fmt.Sprintf("b%d", i)
	}
	h, _ := p.placed(t, 3, stageQueued)
	name[h] = "c0"
	var got []string
	for at := first; at != nil; {
		p.remove(at)
		at = nil
		for h := range p.held {
			if h.stage == stageComputing {
				at = h
				got = append(got, name[h])
				<-h.wake
			}
		}
	}
	if want := []string{"a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4", "a5"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOriginOf(t *testing.T) {
	for _, tt := range []struct{ a, b string }{
		{"192.0.2.1:1", "192.0.2.1:2"},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:2"},
		{"[2001:db8::1]:1", "[2001:db8::ffff:0:0:2]:2"},
		{"[fe80::1%lo]:1", "[fe80::2%lo]:2"},
	} {
		if a, b := addressIn(t, tt.a), addressIn(t, tt.b); a != b || !a.IsValid() {
			t.Errorf("%s is %v and %s is %v, want one", tt.a, a, tt.b, b)
		}
	}
	for _, tt := range []struct{ a, b string }{{"192.0.2.1:1", "192.0.2.2:1"}, {"[2001:db8::1]:1", "[2001:db8:0:1::1]:1"}} {
		if a, b := addressIn(t, tt.a), addressIn(t, tt.b); a == b {
			t.Errorf("%s and %s are both %v", tt.a, tt.b, a)
		}
	}
	if p := originOf(&net.UnixAddr{Name: "@"}); p != (netip.Prefix{}) {
		t.Errorf("a Unix socket is %v", p)
	}
}

func addressIn(t *testing.T, s string) netip.Prefix {
	t.Helper()
	return originOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)))
}

// occupy takes every slot to compute, with handshakes that never finish. free gives them back.
func (h *harness) occupy() (free func()) {
	h.t.Helper()
	var all []*handshake
	for range h.pending.slots {
		o := &handshake{server: h.Server, from: addressOf(1)}
		if _, ok := h.pending.add(o); !ok {
			h.t.Fatal("no place")
		}
		if queued, err := h.pending.take(o); queued || err != nil {
			h.t.Fatalf("no slot: %v", err)
		}
		all = append(all, o)
	}
	return func() {
		for _, o := range all {
			h.pending.remove(o)
		}
	}
}

func (p *places) at(s stage) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.held {
		if h.stage == s {
			n++
		}
	}
	return n
}

func TestTheWaitForASlotEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	h := start(t, "127.0.0.1:1", func(c *Config) { c.HandshakeTimeout = 100 * time.Millisecond })
	free := h.occupy()
	defer free()
	c := dialRaw(t, h.addr)
	c.Write(recordHello(t))
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it waits on")
	}
	eventually(t, "the timeout", func() bool { return h.refused(handshakeTimeout) == 1 && h.pending.at(stageQueued) == 0 })
}

func TestCloseEndsTheWaitForASlot(t *testing.T) {
	t.Parallel()
	h := start(t, "127.0.0.1:1", func(c *Config) { c.HandshakeTimeout = time.Hour })
	h.occupy()
	c := dialRaw(t, h.addr)
	c.Write(recordHello(t))
	eventually(t, "it waits", func() bool { return h.pending.at(stageQueued) == 1 })
	h.pending.mu.Lock()
	for o := range h.pending.held { // they have no socket that Close could close
		if o.sock == nil {
			delete(h.pending.held, o)
		}
	}
	h.pending.mu.Unlock()
	h.Close()
}

// A peer that has gone while its handshake waited for a slot costs no computing.
func TestAPeerThatLeftTheQueueIsNotServed(t *testing.T) {
	t.Parallel()
	h := start(t, "127.0.0.1:1", func(c *Config) { c.HandshakeTimeout = time.Minute })
	free := h.occupy()
	c := dialRaw(t, h.addr)
	c.Write(recordHello(t))
	eventually(t, "it waits", func() bool { return h.pending.at(stageQueued) == 1 })
	c.SetLinger(0)
	c.Close()
	var s *netio.Socket
	h.pending.mu.Lock()
	for o := range h.pending.held {
		if o.sock != nil {
			s = o.sock
		}
	}
	h.pending.mu.Unlock()
	eventually(t, "the reset is here", func() bool { _, broken := s.HungUp(); return broken })
	free()
	eventually(t, "it is over", func() bool { return h.refused(handshakeClosed) == 1 })
}
