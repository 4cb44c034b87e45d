package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// counts is a set of counters by a label that is known to be bounded.
type counts struct {
	mu sync.Mutex
	m  map[string]uint64
}

func (c *counts) add(label string) {
	c.mu.Lock()
	if c.m == nil {
		c.m = make(map[string]uint64)
	}
	c.m[label]++
	c.mu.Unlock()
}

func (c *counts) snapshot() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]uint64, len(c.m))
	for k, v := range c.m {
		m[k] = v
	}
	return m
}

// LatencyBuckets are the upper bounds of the command and handshake histograms, in seconds.
var LatencyBuckets = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// histogram counts durations in LatencyBuckets; the last bucket is infinity.
type histogram struct {
	buckets [len(LatencyBuckets) + 1]atomic.Uint64
	nanos   atomic.Int64
}

func (h *histogram) observe(d time.Duration, n int) {
	s, i := d.Seconds(), 0
	for i < len(LatencyBuckets) && s > LatencyBuckets[i] {
		i++
	}
	h.buckets[i].Add(uint64(n))
	h.nanos.Add(int64(d) * int64(n))
}

func (h *histogram) addTo(s *Histogram) {
	for i := range h.buckets {
		s.Counts[i] += h.buckets[i].Load()
	}
	s.Sum += time.Duration(h.nanos.Load()).Seconds()
}

// Histogram is a snapshot: Counts[i] durations up to LatencyBuckets[i], not cumulative, the last beyond them all.
// Sum is in seconds.
type Histogram struct {
	Counts [len(LatencyBuckets) + 1]uint64
	Sum    float64
}

const stripes = 16

// stripe counts for the sessions that share it, so that cores do not fight for one cache line.
type stripe struct {
	own       pathCounters  // passed on over connections of one session
	lane      pathCounters  // passed on over lanes
	local     pathCounters  // answered here
	bytesIn   atomic.Uint64 // RESP bytes read from clients
	bytesOut  atomic.Uint64 // RESP bytes written to clients
	durations histogram
	_         [64]byte
}

// pathCounters count the commands that went one way, by Command.ID.
type pathCounters []atomic.Uint64

// HandshakeKey labels a count of handshakes. Version is "1.2", "1.3" or empty.
type HandshakeKey struct {
	Reason  string // "ok" or why it failed
	Version string
	Resumed bool
}

// Stats is a snapshot of what a Server counts.
type Stats struct {
	Sessions    int // open
	Handshaking int // sockets without a finished handshake
	// HandshakesWaited counts the sockets that waited to be accepted because all places for handshakes were taken.
	HandshakesWaited uint64
	// SessionsByAnchor and SessionsByGeneration count open sessions by Peer; EarliestEnd is the first NotAfter among
	// them, zero where none has one.
	SessionsByAnchor     map[string]int
	SessionsByGeneration map[uint64]int
	EarliestEnd          time.Time
	SessionsClosed       map[string]uint64
	Handshakes           map[HandshakeKey]uint64
	HandshakeSeconds     Histogram
	Commands             map[string]uint64 // passed on over connections of one session, by name
	CommandsLane         map[string]uint64 // passed on over lanes, by name
	CommandsLocal        map[string]uint64 // answered here, by name
	Denied               map[string]uint64 // refused here, by deniedBy: each is there from the start
	RulesWouldDeny       map[string]uint64 // passed on because the rules of a client's user are a dry run, by name
	// PasswordsRight and PasswordsWrong are logins that clients sent although dragontls authenticates for them.
	PasswordsRight, PasswordsWrong uint64
	CommandSeconds                 Histogram
	BytesIn, BytesOut              uint64
	BufferBytes                    int64 // lent to sessions at the moment
	AcceptErrors                   uint64
	Panics                         uint64
	AuditDropped                   uint64 // lines of the audit log
	BackendUp                      bool
	BackendConnections             int // lanes included
	BackendLanes                   int
	BackendDials                   uint64
	BackendErrors                  map[string]uint64
	BackendRecoveries              map[string]uint64 // by reason, see backend.Recovered
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	b := s.backend.Stats()
	st := Stats{
		SessionsClosed:   s.closed.snapshot(),
		Handshakes:       s.handshakes.snapshot(),
		SessionsByAnchor: map[string]int{}, SessionsByGeneration: map[uint64]int{},
		Commands:      map[string]uint64{},
		CommandsLane:  map[string]uint64{},
		CommandsLocal: map[string]uint64{},
		Denied:        s.denials.snapshot(), RulesWouldDeny: s.byName(s.rulesWouldDeny),
		BufferBytes:        s.buffers.Lent(),
		AcceptErrors:       s.acceptErrors.Load(),
		PasswordsRight:     s.passwordsRight.Load(),
		PasswordsWrong:     s.passwordsWrong.Load(),
		Panics:             s.panics.Load(),
		AuditDropped:       s.audit.droppedSoFar(),
		BackendUp:          b.Up,
		BackendConnections: b.Connections,
		BackendLanes:       s.lanes.Count(),
		BackendDials:       b.Dials,
		BackendErrors:      b.Errors,
		BackendRecoveries:  b.Recoveries,
	}
	s.countPeers(&st)
	st.Handshaking, st.HandshakesWaited = s.pending.len(), s.pending.newcomersWaited()
	s.handshakes.seconds.addTo(&st.HandshakeSeconds)
	for i := range s.stripes {
		t := &s.stripes[i]
		st.BytesIn += t.bytesIn.Load()
		st.BytesOut += t.bytesOut.Load()
		t.durations.addTo(&st.CommandSeconds)
		for id, name := range s.settings.Load().commands.Names {
			if n := t.own[id].Load(); n > 0 {
				st.Commands[name] += n
			}
			if n := t.lane[id].Load(); n > 0 {
				st.CommandsLane[name] += n
			}
			if n := t.local[id].Load(); n > 0 {
				st.CommandsLocal[name] += n
			}
		}
	}
	return st
}

// byName returns counters that are kept by Command.ID by the command's name instead, without those that are 0.
func (s *Server) byName(counters pathCounters) map[string]uint64 {
	m := make(map[string]uint64)
	for id, name := range s.settings.Load().commands.Names {
		if n := counters[id].Load(); n > 0 {
			m[name] += n
		}
	}
	return m
}

func (s *Server) countPeers(st *Stats) {
	s.each(func(n *session) {
		st.Sessions++
		p := n.peer.Load()
		if p == nil {
			return
		}
		st.SessionsByGeneration[p.Generation]++
		if p.Anchor != "" {
			st.SessionsByAnchor[p.Anchor]++
		}
		if e := p.NotAfter; !e.IsZero() && (st.EarliestEnd.IsZero() || e.Before(st.EarliestEnd)) {
			st.EarliestEnd = e
		}
	})
}

// tally is how many commands of one kind are in the batch.
type tally struct {
	id int // of the command
	n  uint64
}

// tally counts the batch's commands in the counters of the path that they take. The caller calls it before a byte of them is
// written. hot
func (s *session) tally(path pathCounters) {
	all := uint64(0)
	for _, t := range s.client.tallied {
		path[t.id].Add(t.n)
		all += t.n
	}
	if all > 0 {
		s.client.commands.Add(all)
	}
	s.client.tallied = s.client.tallied[:0]
	if cap(s.client.tallied) > fewSlots {
		s.client.tallied = nil
	}
}
