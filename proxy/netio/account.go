package netio

import (
	"math"
	"sync"
	"sync/atomic"
)

// Account counts the bytes that one session or lane, its owner, makes the proxy hold. It has no lock of its own: counting
// never waits, and never fails. Safe for concurrent use.
type Account struct {
	buffers *Buffers
	held    atomic.Int64          // bytes that come back when the owner's work goes on, see Hold
	kept    atomic.Int64          // bytes that stay as long as the owner lives, see Keep
	quota   atomic.Pointer[Quota] // nil before Join
	state   atomic.Int32          // see accountOpen
}

const (
	accountOpen     int32 = iota
	accountRelieved       // the reliever has ended the owner: what it holds is about to come back
	accountClosed         // the owner has ended and holds nothing
)

// Join counts what the account holds towards the quota of key from now on, until Close. No other goroutine may use the
// account yet.
func (a *Account) Join(key QuotaKey) {
	q := a.buffers.quotas.join(key)
	q.held.Add(a.held.Load())
	a.quota.Store(q)
}

// Close closes the account of an owner that has ended. The account should hold nothing any more: what it still holds is a
// fault of the owner. Close returns how many bytes that is, and gives them back, so that they do not lower the limit for
// everybody else.
func (a *Account) Close() (lost int64) {
	if lost = a.held.Load(); lost != 0 {
		a.Hold(-lost)
	}
	a.Keep(-a.kept.Load())
	a.state.Store(accountClosed)
	if q := a.quota.Load(); q != nil {
		a.buffers.quotas.leave(q)
	}
	return lost
}

// Relieve marks an open account whose owner is about to be ended for what it holds. It reports whether the caller must end
// the owner: false means that another caller was first, or that the owner has ended by itself.
func (a *Account) Relieve() bool { return a.state.CompareAndSwap(accountOpen, accountRelieved) }

// Open reports whether neither Relieve nor Close was called.
func (a *Account) Open() bool { return a.state.Load() == accountOpen }

// Closed reports whether Close was called.
func (a *Account) Closed() bool { return a.state.Load() == accountClosed }

// Buffers returns the Buffers that lend the account its memory.
func (a *Account) Buffers() *Buffers { return a.buffers }

// Quota returns the quota that the account has joined, or nil.
func (a *Account) Quota() *Quota { return a.quota.Load() }

// Held returns how many bytes are counted by Hold, those of lent chunks and pages among them.
func (a *Account) Held() int64 { return a.held.Load() }

// Kept returns how many bytes are counted by Keep.
func (a *Account) Kept() int64 { return a.kept.Load() }

// Hold counts n bytes more, or fewer if n is negative. It wakes the reliever if the quota then holds more than its share, or
// all accounts together more than the limit. hot
func (a *Account) Hold(n int64) {
	b := a.buffers
	a.held.Add(n)
	lent := b.lent.Add(n)
	q := a.quota.Load()
	var held int64
	if q != nil {
		held = q.held.Add(n)
	}
	if n <= 0 {
		return
	}
	most := b.bounds.Load()
	if q != nil && held > most.share {
		b.passed(q)
	}
	if lent+b.fixed.Load() > most.all {
		b.passed(&b.all)
	}
}

// Keep counts n bytes more, or fewer if n is negative, that the owner keeps as long as it lives. They count towards the
// limit and not towards the share of its quota: the number of sessions bounds them, and they do not show that a peer is
// slow.
func (a *Account) Keep(n int64) {
	if n != 0 {
		a.kept.Add(n)
		a.buffers.Fix(n)
	}
}

// Chunk lends a chunk and counts it, until FreeChunk. Its contents are undefined. hot
func (a *Account) Chunk() *Chunk { return a.lend(&a.buffers.chunks, ChunkSize).(*Chunk) }

// Page lends a page and counts it, until FreePage. Its contents are undefined. hot
func (a *Account) Page() *Page { return a.lend(&a.buffers.pages, PageSize).(*Page) }

// FreeChunk takes back a chunk that the account has counted. hot
func (a *Account) FreeChunk(c *Chunk) { a.takeBack(&a.buffers.chunks, c, ChunkSize) }

// FreePage takes back a page that the account has counted. hot
func (a *Account) FreePage(p *Page) { a.takeBack(&a.buffers.pages, p, PageSize) }

func (a *Account) lend(from *sync.Pool, size int64) any {
	a.Hold(size)
	return from.Get()
}

func (a *Account) takeBack(to *sync.Pool, buffer any, size int64) {
	a.Hold(-size)
	to.Put(buffer)
}

// Pressed reports whether the owner should take in nothing more before it has given something back: memory is scarce, and the
// account holds more than a page.
func (a *Account) Pressed() bool {
	return a.held.Load() > PageSize && a.Scarce()
}

// Scarce reports whether more than three quarters of the limit are in use, or more than half of the share of the account's
// quota. Without a limit memory is never scarce.
func (a *Account) Scarce() bool {
	q, most := a.quota.Load(), a.buffers.bounds.Load()
	return q != nil && q.held.Load() > most.scarceShare || a.buffers.Total() > most.scarce
}

// MinBudget is the least that Budget returns: so many bytes of replies are kept for a client however scarce memory is. With
// less than one read of a lane, the lane's reader would wait for every client.
const MinBudget = ChunkSize

// Budget returns how many bytes of replies the owner's client may leave unsent: most, or a quarter of what is left of the
// quota's share or of the limit, if that is less. Thus clients that read nothing share the memory, and none of them takes it
// all.
func (a *Account) Budget(most int64) int64 {
	b, bounds := a.buffers, a.buffers.bounds.Load()
	left := bounds.all - b.Total()
	if q := a.quota.Load(); q != nil {
		left = min(left, bounds.share-q.held.Load())
	}
	return min(most, max(left/4, MinBudget))
}

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
	bounds atomic.Pointer[bounds]
	all    Quota // stands for all accounts together when the limit is passed; its held is not used
	quotas quotas

	wake chan struct{} // see Exceeded
	mu   sync.Mutex
	over []*Quota // quotas that passed their share, and all if the limit was passed; guarded by mu
}

// bounds are what the limit of Buffers amounts to, in bytes. Nothing modifies them.
type bounds struct {
	all         int64 // lent and fixed may be so many together
	share       int64 // the accounts of one quota may hold so many
	scarce      int64 // above so many of lent and fixed, memory is scarce
	scarceShare int64 // above so many of one quota, it is scarce for the accounts of that quota
}

func boundsOf(limit int64) *bounds {
	if limit <= 0 {
		return &bounds{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64}
	}
	share := limit / quotaShare
	return &bounds{limit, share, limit / 4 * 3, share / 2}
}

// NewBuffers returns Buffers with a limit in bytes, of which one quota may hold a quarter. With 0 there is no limit.
func NewBuffers(limit int64) *Buffers {
	b := &Buffers{wake: make(chan struct{}, 1)}
	b.bounds.Store(boundsOf(limit))
	b.chunks.New = func() any { return new(Chunk) }
	b.pages.New = func() any { return new(Page) }
	return b
}

// SetLimit changes the limit. The reliever is told at once of what exceeds it.
func (b *Buffers) SetLimit(limit int64) {
	b.bounds.Store(boundsOf(limit))
	if b.Excess(&b.all) > 0 {
		b.passed(&b.all)
	}
	for _, q := range b.quotas.list() {
		if b.Excess(q) > 0 {
			b.passed(q)
		}
	}
}

// NewAccount returns an account that belongs to no quota yet.
func (b *Buffers) NewAccount() *Account { return &Account{buffers: b} }

// GetChunk lends a chunk that no account has counted. Its contents are undefined.
func (b *Buffers) GetChunk() *Chunk { return b.chunks.Get().(*Chunk) }

// PutChunk takes back a chunk that no account counts any more.
func (b *Buffers) PutChunk(c *Chunk) { b.chunks.Put(c) }

// getPage and putPage are the same for pages.
func (b *Buffers) getPage() *Page { return b.pages.Get().(*Page) }

func (b *Buffers) putPage(p *Page) { b.pages.Put(p) }

// Lent returns how many bytes the accounts hold.
func (b *Buffers) Lent() int64 { return b.lent.Load() }

// Total returns how many bytes count against the limit: those that are held, kept or fixed.
func (b *Buffers) Total() int64 { return b.lent.Load() + b.fixed.Load() }

// Quotas returns the number of quotas that have an account.
func (b *Buffers) Quotas() int { return b.quotas.len() }

// Fix counts n bytes more, or fewer if n is negative, for what a session or connection costs as long as it lives.
func (b *Buffers) Fix(n int64) {
	if total := b.fixed.Add(n) + b.lent.Load(); n > 0 && total > b.bounds.Load().all {
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

// MostHeld returns what the quota holds that holds most.
func (b *Buffers) MostHeld() int64 { return b.quotas.most() }

// LimitOf returns how many bytes q may hold or, if q is All, how many may be held, kept and fixed together. A nil q stands for any
// quota but All. 0 means that there is no limit.
func (b *Buffers) LimitOf(q *Quota) int64 {
	most := b.bounds.Load()
	n := most.share
	if q == &b.all {
		n = most.all
	}
	if n == math.MaxInt64 {
		return 0
	}
	return n
}

// Excess returns by how many bytes q is above its limit (LimitOf). It is negative if q is below.
func (b *Buffers) Excess(q *Quota) int64 {
	if q == &b.all {
		return b.Total() - b.bounds.Load().all
	}
	return q.held.Load() - b.bounds.Load().share
}
