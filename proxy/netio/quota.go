package netio

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// quotaShare: a quota holds at most this part of the limit of Buffers.
const quotaShare = 4

// Quota adds up what the accounts of one identity hold. Its methods are safe for concurrent use.
type Quota struct {
	key  QuotaKey
	held atomic.Int64
	over atomic.Bool // the reliever is about to look at it
	refs int         // accounts; guarded by quotas.mu
}

// Held returns how many bytes the accounts of the quota hold; those that they keep are not among them.
func (q *Quota) Held() int64 { return q.held.Load() }

// QuotaKey is the identity of a client, or where it has shown no certificate the network that it comes from.
type QuotaKey struct {
	Identity [32]byte
	Network  netip.Prefix
}

// quotas has the quota of each identity that has an account. The zero value works. Safe for concurrent use.
type quotas struct {
	mu  sync.Mutex
	all map[QuotaKey]*Quota // guarded by mu
}

// join returns the quota of key, which has one account more until it leaves.
func (s *quotas) join(key QuotaKey) *Quota {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.all[key]
	if q == nil {
		q = &Quota{key: key}
		if s.all == nil {
			s.all = make(map[QuotaKey]*Quota)
		}
		s.all[key] = q
	}
	q.refs++
	return q
}

func (s *quotas) leave(q *Quota) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.refs--; q.refs == 0 {
		delete(s.all, q.key)
	}
}

func (s *quotas) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}
