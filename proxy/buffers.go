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

// buffers lends the memory that sessions hold only while bytes are on their way, and counts it.
// Safe for concurrent use.
type buffers struct {
	chunks sync.Pool
	pages  sync.Pool
	lent   atomic.Int64 // bytes
	limit  int64        // bytes; 0: none
}

func newBuffers(limit int64) *buffers {
	b := &buffers{limit: limit}
	b.chunks.New = func() any { return new(chunk) }
	b.pages.New = func() any { return new(page) }
	return b
}

func (b *buffers) chunk() *chunk {
	b.lent.Add(chunkSize)
	return b.chunks.Get().(*chunk)
}

func (b *buffers) page() *page {
	b.lent.Add(pageSize)
	return b.pages.Get().(*page)
}

func (b *buffers) freeChunk(c *chunk) {
	b.lent.Add(-chunkSize)
	b.chunks.Put(c)
}

func (b *buffers) freePage(p *page) {
	b.lent.Add(-pageSize)
	b.pages.Put(p)
}

// scarce says that what is lent has passed the limit: readers of clients pause, new sockets are closed.
func (b *buffers) scarce() bool {
	return b.limit > 0 && b.lent.Load() > b.limit
}
