package netio

import (
	"sync"
	"sync/atomic"
)

const (
	// ChunkSize in bytes: four full TLS records, and what a Redis or Dragonfly server writes at a time.
	ChunkSize = 64 << 10
	// PageSize in bytes: a TLS record never holds more, so one read of a client never returns more.
	PageSize = 16 << 10
)

// Chunk and Page are what is lent.
type (
	Chunk [ChunkSize]byte
	Page  [PageSize]byte
)

// Buffers has the memory that is lent while bytes are on their way, and the sum of everything that peers make the proxy
// hold: what the accounts hold, and what is fixed. Safe for concurrent use.
type Buffers struct {
	chunks sync.Pool
	pages  sync.Pool
	lent   atomic.Int64 // bytes that the accounts hold
	fixed  atomic.Int64 // bytes of Fix and Keep
	limit  int64        // bytes, of lent and fixed together; 0: none
	share  int64        // bytes that one quota may hold of lent
	all    Quota        // stands for everybody where limit is passed; its held is not used
	quotas quotas

	wake chan struct{} // see Exceeded
	mu   sync.Mutex
	over []*Quota // that passed their share, or all; guarded by mu
}

// NewBuffers returns Buffers with a limit in bytes, of which one quota may hold a quarter. 0: there is no limit.
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

// Quotas returns to how many quotas an account belongs.
func (b *Buffers) Quotas() int { return b.quotas.len() }

// Fix counts n bytes more, or fewer where n is negative, that are held for as long as something lives.
func (b *Buffers) Fix(n int64) {
	if total := b.fixed.Add(n) + b.lent.Load(); n > 0 && b.limit > 0 && total > b.limit {
		b.passed(&b.all)
	}
}

// Exceeded receives a value after a quota has passed its share, or all together the limit: then TakeExceeded has something.
// There is one receiver, the reliever.
func (b *Buffers) Exceeded() <-chan struct{} { return b.wake }

// passed tells the reliever that q has passed its share, or that all have passed the limit. It never waits: it may be
// called under any lock. hot
func (b *Buffers) passed(q *Quota) {
	if q.over.Load() || !q.over.CompareAndSwap(false, true) {
		return // the reliever has not looked yet
	}
	b.mu.Lock()
	b.over = append(b.over, q)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// TakeExceeded gives the reliever the quotas that passed their share since its last call, All among them if the limit was passed.
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

// LimitOf returns how many bytes q may hold, or where q is All, how many may be held, kept and fixed together.
func (b *Buffers) LimitOf(q *Quota) int64 {
	if q == &b.all {
		return b.limit
	}
	return b.share
}

// Excess returns by how many bytes q is above its limit, see LimitOf; it is negative below.
func (b *Buffers) Excess(q *Quota) int64 {
	if q == &b.all {
		return b.Total() - b.limit
	}
	return q.held.Load() - b.share
}
