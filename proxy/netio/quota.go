package netio

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// quotaShare bounds a quota: it may hold 1/quotaShare of the limit of Buffers.
const quotaShare = 4

// Quota adds up what the accounts of one identity hold. Its methods are safe for concurrent use.
type Quota struct {
	key  QuotaKey
	held atomic.Int64
	over atomic.Bool // it is in Buffers.over: the reliever is about to look at it
	refs int         // number of its accounts; guarded by quotas.mu
}

// Held returns how many bytes the accounts of the quota hold, without those that they keep.
func (q *Quota) Held() int64 { return q.held.Load() }

// QuotaKey is the identity of a client or, if it has shown no certificate, the network that it comes from.
type QuotaKey struct {
	Identity [32]byte
	Network  netip.Prefix
}

// quotas holds the quota of each key that has an account. The zero value works. Safe for concurrent use.
type quotas struct {
	mu  sync.Mutex
	all map[QuotaKey]*Quota // guarded by mu
}

// join adds an account to the quota of key and returns the quota. The account must leave it later.
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

// leave takes an account out of its quota, and forgets a quota that has no account any more.
func (s *quotas) leave(q *Quota) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.refs--; q.refs == 0 {
		delete(s.all, q.key)
	}
}

// list returns all quotas that have an account.
func (s *quotas) list() []*Quota {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.all))
}

// most returns what the quota holds that holds most.
func (s *quotas) most() (held int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.all {
		held = max(held, q.held.Load())
	}
	return held
}

func (s *quotas) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}
