package proxy

import (
	stdheap "container/heap"
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// stage is how far a handshake has come. It decides who is closed first when all places are taken.
type stage uint8

const (
	stageGone      stage = iota // it has no place, or has lost it
	stageHello                  // its peer has not sent a whole ClientHello
	stageWaiting                // it waits for the peer: for the next flight, or until the peer takes ours
	stageQueued                 // it waits for a slot to compute
	stageComputing              // it has a slot
)

// places holds the sockets without a finished handshake, and hands out the slots in which they compute. Every step
// takes O(log n). Safe for concurrent use.
type places struct {
	max   int // sockets
	slots int // handshakes that compute at once

	mu sync.Mutex
	// guarded by mu
	held      map[*handshake]struct{}
	accepted  uint64 // handshakes that ever asked for a place
	greeted   uint64 // ClientHellos that ever were whole
	computing int    // slots in use
	idle      idlers
	origins   map[netip.Prefix]*origin
	crowded   []*origin // those with more than their share of the places: three at most
	turns     list.List // of *origin: those with queued handshakes, in the order in which they get a slot
}

// origin is an address, or the /64 of an IPv6 address, that holds places. Guarded by places.mu.
type origin struct {
	from   netip.Prefix
	held   int
	idle   idlers
	queued list.List     // of *handshake, in the order in which they came
	turn   *list.Element // in places.turns; nil without queued handshakes
}

// inPlaces is the part of a handshake that places keeps. Guarded by places.mu.
type inPlaces struct {
	stage  stage
	number uint64 // the lowest number loses its place first: given at accept, and given again once the ClientHello is whole
	origin *origin
	index  [2]int        // in the heaps of its idlers, by scope
	queued *list.Element // in origin.queued
	wake   chan struct{} // gets a value when the handshake leaves the queue; nil until it was first queued
	lost   string        // the reason for which it lost its place
}

func newPlaces(limit, slots int) *places {
	return &places{
		max: limit, slots: slots, idle: newIdlers(everywhere),
		held: make(map[*handshake]struct{}), origins: make(map[netip.Prefix]*origin),
	}
}

// originOf returns what stands for a peer in the shares of places: its IPv4 address or the /64 of its IPv6 address,
// since one host has that many at its disposal. Peers without an IP address count as one address, the zero Prefix.
func originOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip, bits := tcp.AddrPort().Addr().Unmap().WithZone(""), 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits)
	return p
}

// share is how many places an address keeps when others want them. Without others it may hold all: behind a load
// balancer every client has the same address.
func (p *places) share() int { return max(1, p.max/4) }

func (p *places) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

func (p *places) busy() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.computing
}

func (p *places) all() []*handshake {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*handshake, 0, len(p.held))
	for h := range p.held {
		all = append(all, h)
	}
	return all
}

// add gives h a place. When all are taken, a loser gives its own up: the caller must close its socket. If ok is false,
// nobody ought to give up a place for h, and h has none.
func (p *places) add(h *handshake) (loser *handshake, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted++
	o := p.origins[h.from]
	if o == nil {
		o = &origin{from: h.from, idle: newIdlers(ofOrigin)}
	}
	if len(p.held) >= p.max {
		var reason string
		if loser, reason = p.loser(o); loser == nil {
			return nil, false
		}
		p.drop(loser)
		loser.lost = reason
	}
	p.origins[o.from] = o // also where the loser was its last
	if o.held++; o.held == p.share()+1 {
		p.crowded = append(p.crowded, o)
	}
	p.held[h] = struct{}{}
	h.origin, h.number = o, p.accepted
	p.rest(h, stageHello)
	return loser, true
}

// loser chooses who gives up a place for a newcomer from o, and says why. An address that has its share replaces its
// own. Any other takes a place from an address that holds more than its share, before it takes one from everybody.
func (p *places) loser(o *origin) (*handshake, string) {
	if o.held >= p.share() {
		return o.idle.loser(o.held)
	}
	var most *origin
	for _, c := range p.crowded {
		if most == nil || c.held > most.held {
			most = c
		}
	}
	if most == nil {
		return p.idle.loser(len(p.held))
	}
	h, _ := most.idle.loser(most.held)
	if h == nil && most.queued.Len() > 0 {
		h = most.queued.Back().Value.(*handshake) // it has waited for the shortest time, and cost nothing yet
	}
	return h, handshakeEvictedShare
}

// rest makes h wait for its peer. The caller holds mu.
func (p *places) rest(h *handshake, s stage) {
	h.stage = s
	p.idle.push(h)
	h.origin.idle.push(h)
}

// unrest is the opposite of rest. The caller holds mu.
func (p *places) unrest(h *handshake) {
	p.idle.remove(h)
	h.origin.idle.remove(h)
}

// remove takes the place of h away, and reports whether it still had one.
func (p *places) remove(h *handshake) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.stage == stageGone {
		return false
	}
	p.drop(h)
	return true
}

// drop takes the place, the slot or the turn of h away. The caller holds mu.
func (p *places) drop(h *handshake) {
	o := h.origin
	switch h.stage {
	case stageHello, stageWaiting:
		p.unrest(h)
	case stageQueued:
		p.unqueue(h)
	case stageComputing:
		p.computing--
	}
	h.stage = stageGone
	delete(p.held, h)
	if o.held--; o.held == p.share() {
		for i, c := range p.crowded {
			if c == o {
				p.crowded = append(p.crowded[:i], p.crowded[i+1:]...)
				break
			}
		}
	}
	if o.held == 0 {
		delete(p.origins, o.from)
	}
	p.grant()
}

// lostBy returns the reason for which h has lost its place; empty: it has not.
func (p *places) lostBy(h *handshake) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return h.lost
}

// Scopes of idlers.
const (
	everywhere = iota
	ofOrigin
)

// idlers are the handshakes that wait for their peers. Guarded by places.mu.
type idlers struct{ hello, waiting ages }

func newIdlers(scope int) idlers { return idlers{ages{scope: scope}, ages{scope: scope}} }

func (i *idlers) of(h *handshake) *ages {
	if h.stage == stageHello {
		return &i.hello
	}
	return &i.waiting
}

func (i *idlers) push(h *handshake) { stdheap.Push(i.of(h), h) }

func (i *idlers) remove(h *handshake) {
	a := i.of(h)
	stdheap.Remove(a, h.index[a.scope])
}

// loser chooses among the idlers, which have some of held places; the others compute or wait for a slot.
//
// The oldest without a whole ClientHello goes first, then the one whose ClientHello has been whole for longest. There
// are two exceptions. While those without a ClientHello are less than a quarter of the idlers, they stay: peers that
// send a ClientHello and stop there would otherwise leave newcomers no time to send theirs. And while most of held
// compute, no handshake with a ClientHello goes: the places are taken by our slowness then, not by idle peers, and
// closing those that have nearly finished would let nobody finish at all.
func (i *idlers) loser(held int) (*handshake, string) {
	hello, waiting := i.hello.Len(), i.waiting.Len()
	switch {
	case hello > 0 && 3*hello > waiting:
	case waiting > 0 && 2*(hello+waiting) >= held:
		return i.waiting.all[0], handshakeEvictedWaiting
	case hello == 0:
		return nil, ""
	}
	return i.hello.all[0], handshakeEvicted
}

// ages is a heap of handshakes; the one with the lowest number is on top.
type ages struct {
	scope int
	all   []*handshake
}

func (a *ages) Len() int           { return len(a.all) }
func (a *ages) Less(i, j int) bool { return a.all[i].number < a.all[j].number }

func (a *ages) Swap(i, j int) {
	a.all[i], a.all[j] = a.all[j], a.all[i]
	a.all[i].index[a.scope], a.all[j].index[a.scope] = i, j
}

func (a *ages) Push(x any) {
	h := x.(*handshake)
	h.index[a.scope] = len(a.all)
	a.all = append(a.all, h)
}

func (a *ages) Pop() any {
	last := len(a.all) - 1
	h := a.all[last]
	a.all[last] = nil
	a.all = a.all[:last]
	return h
}
