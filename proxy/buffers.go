package proxy

import (
	"sync"
	"sync/atomic"
)

const (
	// chunkSize: four full TLS records, and what a Redis or Dragonfly server writes at a time.
	chunkSize = 64 << 10
	// pageSize: a TLS record never holds more, so one read of a client never returns more.
	pageSize = 16 << 10
)

type (
	chunk [chunkSize]byte
	page  [pageSize]byte
)

// buffers has the memory that is lent while bytes are on their way, and the sum of everything that peers make the proxy
// hold, see memory.go. Safe for concurrent use.
type buffers struct {
	chunks sync.Pool
	pages  sync.Pool
	lent   atomic.Int64 // bytes that the accounts hold
	fixed  atomic.Int64 // bytes that sessions and backend connections cost while they live, whatever they do
	limit  int64        // bytes, of lent and fixed together; 0: none
	share  int64        // bytes that one quota may hold of lent
	all    quota        // stands for everybody where limit is passed; its held is not used

	wake chan struct{} // to the reliever: over has something
	mu   sync.Mutex
	over []*quota // that passed their share, or all; guarded by mu
}

func newBuffers(limit int64) *buffers {
	b := &buffers{limit: limit, share: limit / quotaShare, wake: make(chan struct{}, 1)}
	b.chunks.New = func() any { return new(chunk) }
	b.pages.New = func() any { return new(page) }
	return b
}

// chunk and page lend memory that no account has counted.
func (b *buffers) chunk() *chunk { return b.chunks.Get().(*chunk) }
func (b *buffers) page() *page   { return b.pages.Get().(*page) }

// open returns an account that belongs to no quota yet.
func (b *buffers) open() *account { return &account{buffers: b} }

// total is what counts against limit.
func (b *buffers) total() int64 { return b.lent.Load() + b.fixed.Load() }

// passed tells the reliever that q has passed its share, or that all have passed the limit. It never waits: it may be
// called under any lock. hot
func (b *buffers) passed(q *quota) {
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

// takeOver gives the reliever the quotas that passed their share since its last call.
func (b *buffers) takeOver() []*quota {
	b.mu.Lock()
	over := b.over
	b.over = nil
	b.mu.Unlock()
	for _, q := range over {
		q.over.Store(false)
	}
	return over
}

// fix counts n bytes more or fewer that are held for as long as something lives.
func (b *buffers) fix(n int64) {
	if total := b.fixed.Add(n) + b.lent.Load(); n > 0 && b.limit > 0 && total > b.limit {
		b.passed(&b.all)
	}
}
