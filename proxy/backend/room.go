package backend

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"dragontls/proxy/limit"
)

// placeInterval: so often idle connections are looked for while dials wait for a place.
const placeInterval = 10 * time.Millisecond

// room bounds the backend connections that are open. Dials that find no place wait in turn, and while they do one
// goroutine closes connections that are idle. Safe for concurrent use.
type room struct {
	closeIdle func(n int)  // closes up to n connections, those that have been idle for longest; nil if none may be closed
	limit     *limit.Limit // reached by each dial that has to wait; may be nil

	// They change under mu; isFull reads them without it.
	open atomic.Int64 // places that are taken
	most atomic.Int64 // places; 0: no limit

	mu      sync.Mutex
	waiting list.List // of chan struct{}, one for each dial that waits; closed when it gets a place; guarded by mu
	making  bool      // the goroutine runs; guarded by mu
}

// take waits for a place. It reports whether there was one before ctx ended.
func (r *room) take(ctx context.Context) bool {
	r.mu.Lock()
	if r.waiting.Len() == 0 && !r.isFull() {
		r.open.Add(1)
		r.mu.Unlock()
		return true
	}
	got := make(chan struct{})
	place := r.waiting.PushBack(got)
	if !r.making && r.closeIdle != nil {
		r.making = true
		go r.make() // ends when no dial waits; nobody waits for it
	}
	r.mu.Unlock()
	r.limit.Reached(nil)
	select {
	case <-got:
		return true
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-got: // at the same moment
		return true
	default:
		r.waiting.Remove(place)
		return false
	}
}

func (r *room) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open.Add(-1)
	r.grant()
}

// setMost changes how many places there are. Fewer than are taken close nothing: the places are not given out again.
func (r *room) setMost(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most.Store(int64(n))
	r.grant()
}

// grant gives free places to the dials that wait. The caller must hold mu.
func (r *room) grant() {
	for r.waiting.Len() > 0 && !r.isFull() {
		r.open.Add(1)
		close(r.waiting.Remove(r.waiting.Front()).(chan struct{}))
	}
}

// isFull reports whether a dial would wait.
func (r *room) isFull() bool {
	most := r.most.Load()
	return most > 0 && r.open.Load() >= most
}

// make closes idle connections until no dial waits for a place.
func (r *room) make() {
	for {
		r.mu.Lock()
		n := r.waiting.Len()
		r.making = n > 0
		r.mu.Unlock()
		if n == 0 {
			return
		}
		r.closeIdle(n)
		time.Sleep(placeInterval)
	}
}
