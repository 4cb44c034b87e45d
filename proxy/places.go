package proxy

import (
	stdheap "container/heap"
	"container/list"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"dragontls/proxy/clock"
	"dragontls/proxy/limit"
)

// stage is how far a handshake has come. It decides which socket is closed first when all places are taken.
type stage uint8

const (
	stageGone      stage = iota // it has no place, or has lost it
	stageHello                  // its peer has not yet sent a whole ClientHello
	stageWaiting                // it waits for the peer: for the next flight, or until the peer takes ours
	stageQueued                 // it waits for a slot to compute
	stageComputing              // it has a slot
)

// places holds the sockets whose handshake is not finished, and hands out the slots in which handshakes compute. Every step
// takes O(log n). Safe for concurrent use.
type places struct {
	slots int // limit of handshakes that compute at once

	now     func() clock.Instant // a clock of its own, not Server.now
	changed chan struct{}        // gets a value when a place was given back, or a handshake begins to wait for its peer
	limit   *limit.Limit         // reached by each newcomer that finds all places taken; nil: nobody is told

	mu sync.Mutex
	// guarded by mu
	max       int // limit of sockets, see setMax
	held      map[*handshake]struct{}
	accepted  uint64 // handshakes that have ever asked for a place
	greeted   uint64 // whole ClientHellos that have ever arrived
	computing int    // slots in use
	door      door
	idle      idlers
	origins   map[netip.Prefix]*origin
	crowded   []*origin // origins that hold more than their share of the places: three at most, unless setMax has lowered it
	turns     list.List // of *origin: those with queued handshakes, in the order in which they get a slot
}

// origin is an IPv4 address or an IPv6 /64 that holds places. Guarded by places.mu.
type origin struct {
	from   netip.Prefix
	held   int
	idle   idlers
	queued queue
	turn   *list.Element // in places.turns; nil if it has no queued handshakes
}

// inPlaces is what places knows of a handshake. Guarded by places.mu.
type inPlaces struct {
	stage   stage
	greeted bool          // its ClientHello is whole
	mute    bool          // what its peer sends now does not make it wait for us, see places.stop
	since   clock.Instant // when it began to wait for its peer, see places.now

	number uint64 // the lowest number loses its place first: assigned at accept, and again once the ClientHello is whole
	origin *origin
	index  [2]int        // its place in the heaps of idlers, by scope
	queued *list.Element // in one of the lists of origin.queued
	wake   chan struct{} // gets a value when the handshake leaves the queue; nil until it was first queued
	lost   string        // why it lost its place, as the label of a metric; empty if it did not
}

func newPlaces(most, slots int) *places {
	return &places{
		max: most, slots: slots, idle: newIdlers(everywhere),
		now: clock.Start(), changed: make(chan struct{}, 1),
		held: make(map[*handshake]struct{}), origins: make(map[netip.Prefix]*origin),
	}
}

// originOf returns the origin to which a peer belongs: its IPv4 address, or the /64 of its IPv6 address, since one host has
// that many addresses at its disposal. All peers without an IP address count as one, the zero Prefix.
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

// setMax changes the limit of sockets. Those above a lower one stay until newcomers replace them or they end.
func (p *places) setMax(most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.max = most
	p.crowded = nil
	for _, o := range p.origins {
		if o.held > p.share() {
			p.crowded = append(p.crowded, o)
		}
	}
	p.change()
}

// share is how many places an origin keeps when others want them. Without others it may hold all: behind a load balancer
// every client has the same address. The caller must hold mu.
func (p *places) share() int { return max(1, p.max/4) }

// len returns how many places are taken.
func (p *places) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

// busy returns how many handshakes have a slot.
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

// addLocked is add, and tryAdd if h may wait. The caller must hold mu.
func (p *places) addLocked(h *handshake, mayWait bool) (loser *handshake, ok bool, wait time.Duration) {
	o := p.originFor(h.from)
	if len(p.held) >= p.max {
		var reason string
		loser, reason = p.loser(o)
		if mayWait {
			wait = p.patience(loser)
		}
		if loser == nil || wait > 0 {
			return nil, false, wait
		}
		p.drop(loser)
		loser.lost = reason
	}
	p.join(o) // drop has removed it if the loser held its last place
	p.held[h] = struct{}{}
	h.origin, h.number = o, p.accepted
	h.since = p.now()
	p.rest(h)
	return loser, true, 0
}

// loser chooses the handshake that loses its place to a newcomer from o, and returns why. An origin that has its share
// replaces one of its own. Any other takes a place from the origin furthest above its share or, if none is above, from all.
// It returns nil if no handshake may be closed. The caller must hold mu.
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
	if h == nil {
		h = most.queued.last() // it has cost no computing yet, in all likelihood
	}
	return h, handshakeEvictedShare
}

// rest puts h among the idlers: it waits for its peer. The caller must hold mu.
func (p *places) rest(h *handshake) {
	h.stage = stageHello
	if h.greeted {
		h.stage = stageWaiting
	}
	p.idle.push(h)
	h.origin.idle.push(h)
	p.change()
}

// unrest takes h out of the idlers. The caller must hold mu.
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

// drop takes away the place of h, and with it its slot or its turn in the queue. The caller must hold mu.
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
	p.change()
	delete(p.held, h)
	p.part(o)
	p.grant()
}

// originFor returns the origin of that name, which is a new one if none of its handshakes holds a place. The caller must hold mu.
func (p *places) originFor(from netip.Prefix) *origin {
	if o := p.origins[from]; o != nil {
		return o
	}
	return &origin{from: from, idle: newIdlers(ofOrigin)}
}

// join counts one place more of an origin. The caller must hold mu.
func (p *places) join(o *origin) {
	p.origins[o.from] = o
	if o.held++; o.held == p.share()+1 {
		p.crowded = append(p.crowded, o)
	}
}

// part counts one place less of an origin. The caller must hold mu.
func (p *places) part(o *origin) {
	if o.held--; o.held == p.share() {
		p.crowded = slices.DeleteFunc(p.crowded, func(c *origin) bool { return c == o })
	}
	if o.held == 0 {
		delete(p.origins, o.from)
	}
}

// reassign gives the place of h, which waits for its peer, to another origin: that of the client behind a load balancer. Nobody loses a
// place for that. If the origin then has more than its share, newcomers of others take from it first.
func (p *places) reassign(h *handshake, to netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.from = to
	if h.stage != stageHello { // it has lost its place
		return
	}
	h.origin.idle.remove(h)
	p.part(h.origin)
	h.origin = p.originFor(to)
	p.join(h.origin)
	h.origin.idle.push(h)
	p.change()
}

// lostBy returns why h has lost its place to another, or an empty string if it has not.
func (p *places) lostBy(h *handshake) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return h.lost
}

// The scopes of idlers, which index inPlaces.index.
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

// loser chooses the idler that loses its place, and returns why. held is the number of places from which it chooses: those
// that idlers do not hold belong to handshakes that compute or wait for a slot.
//
// The oldest without a whole ClientHello goes first, then the one whose ClientHello has been whole for longest. There are
// two exceptions. While those without a ClientHello are no more than a quarter of the idlers, they stay: peers that send a
// ClientHello and stop there would otherwise leave newcomers no time to send theirs. And while more than half of held
// compute or wait for a slot, no handshake with a ClientHello goes: the places are then taken because we are slow, not
// because peers are idle, and closing those that have nearly finished would let none finish at all.
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
