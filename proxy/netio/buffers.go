package netio

import (
	"sync"
	"sync/atomic"
)

const (
	// ChunkSize is in bytes: four full TLS records, and what a Redis or Dragonfly server writes at a time.
	ChunkSize = 64 << 10
	// PageSize is in bytes: a TLS record never holds more, so one read from a client never returns more.
	PageSize = 16 << 10
)

// Chunk and Page are the buffers that are lent.
type (
	Chunk [ChunkSize]byte
	Page  [PageSize]byte
)

// Buffers lends the buffers for bytes that are on their way, and adds up everything that peers make the proxy hold: what the
// accounts hold and keep, and what is fixed. Safe for concurrent use.
type Buffers struct {
	chunks sync.Pool
	pages  sync.Pool
	lent   atomic.Int64 // bytes that the accounts hold
	fixed  atomic.Int64 // bytes of Fix and Keep
	limit  int64        // bytes that lent and fixed may be together; 0: no limit
	share  int64        // bytes that the accounts of one quota may hold
	all    Quota        // stands for all accounts together when limit is passed; its held is not used
	quotas quotas

	wake chan struct{} // see Exceeded
	mu   sync.Mutex
	over []*Quota // quotas that passed their share, and all if limit was passed; guarded by mu
}

// NewBuffers returns Buffers with a limit in bytes, of which one quota may hold a quarter. With 0 there is no limit.
func NewBuffers(limit int64) *Buffers {
	b := &Buffers{limit: limit, share: limit / quotaShare, wake: make(chan struct{}, 1)}
	b.chunks.New = func() any { return new(Chunk) }
	b.pages.New = func() any { return new(Page) }
	return b
}

// NewAccount returns an account that belongs to no quota yet.
func (b *Buffers) NewAccount() *Account { return &Account{buffers: b} }

// GetChunk lends a chunk that no account has counted. Its contents are undefined.
func (b *Buffers) GetChunk() *Chunk { return b.chunks.Get().(*Chunk) }

// PutChunk takes back a chunk that no account counts any more.
func (b *Buffers) PutChunk(c *Chunk) { b.chunks.Put(c) }

// getPage and putPage are the same for pages.
func (b *Buffers) getPage() *Page  { return b.pages.Get().(*Page) }
func (b *Buffers) putPage(p *Page) { b.pages.Put(p) }

// Lent returns how many bytes the accounts hold.
func (b *Buffers) Lent() int64 { return b.lent.Load() }

// Total returns how many bytes count against the limit: those that are held, kept or fixed.
func (b *Buffers) Total() int64 { return b.lent.Load() + b.fixed.Load() }

// Quotas returns the number of quotas that have an account.
func (b *Buffers) Quotas() int { return b.quotas.len() }

// Fix counts n bytes more, or fewer if n is negative, for what a session or connection costs as long as it lives.
func (b *Buffers) Fix(n int64) {
	if total := b.fixed.Add(n) + b.lent.Load(); n > 0 && b.limit > 0 && total > b.limit {
		b.passed(&b.all)
	}
}

// Exceeded returns a channel that gets a value after a quota has passed its share, or all accounts together the limit. The
// reliever, which is the only receiver, then calls TakeExceeded.
func (b *Buffers) Exceeded() <-chan struct{} { return b.wake }

// passed tells the reliever that q has passed its share or, if q is All, that the limit was passed. It never waits, so it
// may be called under any lock. hot
func (b *Buffers) passed(q *Quota) {
	if q.over.Load() || !q.over.CompareAndSwap(false, true) {
		return // the reliever was told before and has not looked yet
	}
	b.mu.Lock()
	b.over = append(b.over, q)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// TakeExceeded returns the quotas that have passed their share since its last call, and All if the limit was passed.
func (b *Buffers) TakeExceeded() []*Quota {
	b.mu.Lock()
	over := b.over
	b.over = nil
	b.mu.Unlock()
	for _, q := range over {
		q.over.Store(false)
	}
	return over
}

// All is the quota that stands for everybody together.
func (b *Buffers) All() *Quota { return &b.all }

// LimitOf returns how many bytes q may hold or, if q is All, how many may be held, kept and fixed together.
func (b *Buffers) LimitOf(q *Quota) int64 {
	if q == &b.all {
		return b.limit
	}
	return b.share
}

// Excess returns by how many bytes q is above its limit (LimitOf). It is negative if q is below.
func (b *Buffers) Excess(q *Quota) int64 {
	if q == &b.all {
		return b.Total() - b.limit
	}
	return q.held.Load() - b.share
}
