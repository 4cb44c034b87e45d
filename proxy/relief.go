package proxy

import (
	"cmp"
	stdheap "container/heap"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/lane"
	"dragontls/proxy/limit"
	"dragontls/proxy/netio"
)

const (
	// Relief ends as many sessions and lanes as bring what is held down to reliefEighths eighths of the limit, so that it is not
	// needed again at once.
	reliefEighths = 7
	// A session that had a command or a reply within atWork is taken to be at work, and about to give back what it holds. Relief
	// ends it only if those that are stuck do not hold enough.
	atWork = 100 * time.Millisecond
	// reliefPause is the time between two looks, in which the sessions and lanes that were ended can give their memory back.
	reliefPause = 5 * time.Millisecond
	// A paused session checks after memoryPause whether there is memory again, and then after twice as long each time, up to
	// maxMemoryPause.
	memoryPause, maxMemoryPause = 10 * time.Millisecond, 320 * time.Millisecond
)

// holder is a session or a lane that relief may end.
type holder struct {
	account *netio.Account
	session *session // nil for a lane
	lane    *lane.Lane
	held    int64         // what its quota gets back
	size    int64         // what comes back in all when it ends
	active  clock.Instant // when it last had a command or a reply
	working bool          // see atWork
}

// reliever ends the sessions and lanes that hold most when a quota passes its share, or when all together pass the limit. Its
// goroutine owns it.
type reliever struct {
	server *Server
	ended  []*netio.Account // of sessions and lanes that were ended and are still giving their memory back
}

// relieve is the reliever's goroutine. It sleeps until a quota passes its share, or all together the limit.
func (s *Server) relieve() {
	defer s.running.Done()
	r := reliever{server: s}
	for {
		select {
		case <-s.done:
			return
		case <-s.buffers.Exceeded():
		}
		r.look()
		if !s.napUnless(s.done, reliefPause) {
			return
		}
	}
}

// napUnless waits for d. It returns false if done or the server was closed before d had passed.
func (s *Server) napUnless(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-done:
	case <-s.done:
	}
	return false
}

// look relieves each quota that has passed its share, and all together if they have passed the limit. It logs a panic; the
// next look finds those that were not ended.
func (r *reliever) look() {
	s := r.server
	defer func() {
		if v := recover(); v != nil {
			s.lanePanic(v)
		}
	}()
	over := s.buffers.TakeExceeded()
	r.ended = slices.DeleteFunc(r.ended, func(a *netio.Account) bool { return a.Closed() })
	var holders []holder
	for _, q := range over {
		excess := r.excess(q)
		if excess <= 0 {
			continue
		}
		if holders == nil {
			holders = s.holders()
		}
		passed, choose := limitShare, ofQuota(q)
		if q == s.buffers.All() {
			passed, choose = limitMemory, ofAll
		}
		for _, h := range choose(holders, excess+s.buffers.LimitOf(q)/8*(8-reliefEighths)) {
			r.end(h, s.limits[passed])
		}
	}
}

// excess returns by how many bytes q will exceed its share, or all together the limit, once the holders that were already
// ended have given back what they hold.
func (r *reliever) excess(q *netio.Quota) int64 {
	b := r.server.buffers
	all := q == b.All()
	excess := b.Excess(q)
	for _, a := range r.ended {
		switch {
		case all:
			excess -= a.Held() + a.Kept() + sessionCost
		case a.Quota() == q:
			excess -= a.Held()
		}
	}
	return excess
}

// holders returns the sessions and lanes that relief may end now: those that are stuck before those at work, and of each
// those that hold most first. A session that holds nothing is not among them, and so it goes on.
func (s *Server) holders() []holder {
	var all []holder
	s.each(func(n *session) {
		if !n.account().Open() {
			return
		}
		held, kept := n.account().Held(), n.account().Kept()
		if held+kept > 0 {
			all = append(all, holder{account: n.account(), session: n, held: held, size: held + kept + sessionCost, active: n.lastActive.Load()})
		}
	})
	for _, l := range s.lanes.Live() {
		a := l.Account()
		held, kept := a.Held(), a.Kept()
		if held > 0 && a.Open() {
			all = append(all, holder{account: a, lane: l, held: held, size: held + kept, active: l.LastReply()})
		}
	}
	begun := s.now().Add(-atWork)
	for i := range all {
		all[i].working = all[i].active > begun
	}
	slices.SortFunc(all, func(a, b holder) int {
		if a.working != b.working {
			if a.working {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(b.held, a.held), cmp.Compare(b.size, a.size), cmp.Compare(a.active, b.active))
	})
	return all
}

// ofQuota chooses the first holders of one quota, until it gets back enough.
func ofQuota(q *netio.Quota) func(holders []holder, enough int64) []*holder {
	return func(holders []holder, enough int64) (chosen []*holder) {
		for i := range holders {
			h := &holders[i]
			if enough <= 0 {
				break
			}
			if h.held > 0 && h.account.Quota() == q && h.account.Open() {
				chosen = append(chosen, h)
				enough -= h.held
			}
		}
		return chosen
	}
}

// ofAll repeatedly chooses the first holder of the quota that holds most, until enough bytes come back. Sessions that only
// keep room for records are chosen once no other holder is left.
func ofAll(holders []holder, enough int64) (chosen []*holder) {
	chosen, enough = ofMost(holders, enough, func(h *holder) int64 { return h.held })
	if enough > 0 {
		idle, _ := ofMost(holders, enough, func(h *holder) int64 {
			if h.held > 0 {
				return 0
			}
			return h.size
		})
		chosen = append(chosen, idle...)
	}
	return chosen
}

// ofMost chooses among the holders with a weight, and returns what is still missing.
func ofMost(holders []holder, enough int64, weight func(*holder) int64) (chosen []*holder, missing int64) {
	byQuota := make(map[*netio.Quota]*quotaHolders)
	var most mostHeld
	for i := range holders {
		h := &holders[i]
		if weight(h) <= 0 || !h.account.Open() {
			continue
		}
		q := h.account.Quota()
		of := byQuota[q]
		if of == nil {
			of = new(quotaHolders)
			byQuota[q] = of
			most = append(most, of)
		}
		of.weight += weight(h)
		of.holders = append(of.holders, h)
	}
	stdheap.Init(&most)
	for enough > 0 && len(most) > 0 {
		of := most[0]
		h := of.holders[0]
		chosen = append(chosen, h)
		enough -= h.size
		of.weight -= weight(h)
		if of.holders = of.holders[1:]; len(of.holders) == 0 {
			stdheap.Pop(&most)
			continue
		}
		stdheap.Fix(&most, 0)
	}
	return chosen, enough
}

// end ends a holder, unless it has just ended by itself. A session whose client does not take its replies ends as a slow
// client. Commands in flight on a lane are answered as if the backend had closed it.
func (r *reliever) end(h *holder, l *limit.Limit) {
	s := r.server
	if !h.account.Relieve() {
		return
	}
	r.ended = append(r.ended, h.account)
	if h.lane != nil {
		l.Reached(func(e *zerolog.Event) {
			e.Int64("held", h.size).Str("closed", "a shared connection: the commands that wait for the backend hold most")
		})
		s.backend.Count("memory_limit")
		h.lane.Close()
		return
	}
	reason := closeMemory
	if h.session.takesNothing() {
		reason = closeSlow
	}
	describe := func(e *zerolog.Event) {
		h.session.describe(e)
		e.Int64("held", h.size).Str("reason", string(reason))
	}
	l.Reached(describe)
	e := s.log.Debug().Str("limit", l.Name())
	describe(e)
	e.Msg("session holds too much memory")
	h.session.kill(reason)
}

// takesNothing reports whether bytes wait for the client to take them.
func (s *session) takesNothing() bool {
	if s.client.sock.Stuck() {
		return true
	}
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.out.unsent > 0
}

// quotaHolders are the holders of one quota, in the order of Server.holders.
type quotaHolders struct {
	weight  int64
	holders []*holder
}

// mostHeld is a heap of quotas (container/heap), the one that holds most first.
type mostHeld []*quotaHolders

func (m mostHeld) Len() int           { return len(m) }
func (m mostHeld) Less(i, j int) bool { return m[i].weight > m[j].weight }
func (m mostHeld) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *mostHeld) Push(x any)        { *m = append(*m, x.(*quotaHolders)) }
func (m *mostHeld) Pop() any {
	last := len(*m) - 1
	x := (*m)[last]
	*m = (*m)[:last]
	return x
}
