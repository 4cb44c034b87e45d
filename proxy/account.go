package proxy

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// account counts the bytes that one session or lane makes the proxy hold. It has no lock of its own: counting never
// waits, and never fails. Safe for concurrent use.
type account struct {
	buffers *buffers
	held    atomic.Int64          // bytes that come back when its work goes on
	kept    atomic.Int64          // bytes that stay for its life, see keep
	quota   atomic.Pointer[quota] // nil: none yet
	state   atomic.Int32          // see accountOpen
	batch   int64                 // what countBatch counted last; only the session's reader uses it
}

const (
	accountOpen     int32 = iota
	accountRelieved       // the reliever has ended its owner: what it holds is about to come back
	accountClosed         // its owner has ended and holds nothing
)

// quota adds up what the accounts of one identity hold.
type quota struct {
	key  quotaKey
	held atomic.Int64
	over atomic.Bool // the reliever is about to look at it
	refs int         // guarded by quotas.mu
}

// quotaKey is the identity of a client, or where it has shown no certificate the network that it comes from.
type quotaKey struct {
	identity [32]byte
	network  netip.Prefix
}

// quotas has the quota of each identity that has a session or a lane. The zero value works. Safe for concurrent use.
type quotas struct {
	mu  sync.Mutex
	all map[quotaKey]*quota // guarded by mu
}

// join counts what a holds towards the quota of key from now on, until a leaves. Nobody else uses the account yet.
func (s *quotas) join(a *account, key quotaKey) {
	s.mu.Lock()
	q := s.all[key]
	if q == nil {
		q = &quota{key: key}
		if s.all == nil {
			s.all = make(map[quotaKey]*quota)
		}
		s.all[key] = q
	}
	q.refs++
	s.mu.Unlock()
	q.held.Add(a.held.Load())
	a.quota.Store(q)
}

// quotaKey is that of the session's client.
func (s *session) quotaKey() quotaKey {
	if p := s.peer.Load(); p != nil && p.Identity != [32]byte{} {
		return quotaKey{identity: p.Identity}
	}
	return quotaKey{network: originOf(s.client.sock.RemoteAddr())}
}

// leave closes the account, which holds nothing any more.
func (s *quotas) leave(a *account) {
	a.keep(-a.kept.Load())
	a.state.Store(accountClosed)
	q := a.quota.Load()
	if q == nil {
		return
	}
	s.mu.Lock()
	if q.refs--; q.refs == 0 {
		delete(s.all, q.key)
	}
	s.mu.Unlock()
}

// closeAccount closes the account of a session or lane that has ended. It must hold nothing any more: what it does hold was
// lost by a fault of ours, which is logged, and given back here, so that it does not lower the limit for everybody else.
func (s *Server) closeAccount(a *account) {
	if n := a.held.Load(); n != 0 {
		a.hold(-n)
		s.log.Error().Int64("bytes", n).Msg(neverGivenBack)
	}
	s.quotas.leave(a)
}

const neverGivenBack = "bytes were counted and never given back"

// hold counts n bytes more, or fewer where n is negative. Where that passes the share of the quota or the limit of all,
// it wakes the reliever. hot
func (a *account) hold(n int64) {
	b := a.buffers
	a.held.Add(n)
	lent := b.lent.Add(n)
	q := a.quota.Load()
	var held int64
	if q != nil {
		held = q.held.Add(n)
	}
	if n <= 0 || b.limit <= 0 {
		return
	}
	if q != nil && held > b.share {
		b.passed(q)
	}
	if lent+b.fixed.Load() > b.limit {
		b.passed(&b.all)
	}
}

// keep counts n bytes that the owner keeps as long as it lives. They count towards the limit of all and not towards the
// share of its quota: the number of sessions bounds them, and they are no sign that anybody waits.
func (a *account) keep(n int64) {
	if n != 0 {
		a.kept.Add(n)
		a.buffers.fix(n)
	}
}

func (a *account) chunk() *chunk {
	a.hold(chunkSize)
	return a.buffers.chunk()
}

func (a *account) page() *page {
	a.hold(pageSize)
	return a.buffers.page()
}

func (a *account) freeChunk(c *chunk) {
	a.hold(-chunkSize)
	a.buffers.chunks.Put(c)
}

func (a *account) freePage(p *page) {
	a.hold(-pageSize)
	a.buffers.pages.Put(p)
}

// pressed reports whether the account should take in nothing more before it has given something back: memory is scarce, and
// it holds more than a page. Whoever holds nothing goes on.
func (a *account) pressed() bool {
	return a.held.Load() > pageSize && a.scarce()
}

// scarce reports whether memory is three quarters full, or the share of the account's quota half full.
func (a *account) scarce() bool {
	b := a.buffers
	if b.limit <= 0 {
		return false
	}
	q := a.quota.Load()
	return q != nil && q.held.Load() > b.share/2 || b.total() > b.limit/4*3
}

// budget is how many bytes of replies its client may leave unsent: most, or a quarter of what is left of the quota's share
// and of the limit, if that is less. So many clients that read nothing share what there is, and none of them takes all.
func (a *account) budget(most int64) int64 {
	b := a.buffers
	if b.limit <= 0 {
		return most
	}
	left := b.limit - b.total()
	if q := a.quota.Load(); q != nil {
		left = min(left, b.share-q.held.Load())
	}
	return min(most, max(left/4, minBudget))
}
