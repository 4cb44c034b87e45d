package backend

import (
	"context"
	"sync"
	"time"

	"dragontls/proxy/limit"
)

// placeInterval: so often idle connections are looked for while dials wait for a place.
const placeInterval = 10 * time.Millisecond

// room bounds the backend connections that are open. Dials that find no place wait in turn, and while they do one
// goroutine closes connections that are idle. Safe for concurrent use.
type room struct {
	places    chan struct{} // has one value for each connection
	closeIdle func(n int)   // closes up to n connections, those that have been idle for longest; nil if none may be closed
	limit     *limit.Limit  // reached by each dial that has to wait; may be nil

	mu      sync.Mutex
	waiting int  // dials; guarded by mu
	making  bool // the goroutine runs; guarded by mu
}

// take waits for a place. It reports whether there was one before ctx ended.
func (r *room) take(ctx context.Context) bool {
	select {
	case r.places <- struct{}{}:
		return true
	default:
	}
	r.limit.Reached(nil)
	r.wait()
	defer r.waited()
	select {
	case r.places <- struct{}{}: // the runtime serves those that wait in turn
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *room) leave() { <-r.places }

// isFull reports whether a dial would wait. A nil room never is.
func (r *room) isFull() bool { return r != nil && len(r.places) == cap(r.places) }

func (r *room) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting++
	if !r.making && r.closeIdle != nil {
		r.making = true
		go r.make() // ends when no dial waits; nobody waits for it
	}
}

func (r *room) waited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
}

// make closes idle connections until no dial waits for a place.
func (r *room) make() {
	for {
		r.mu.Lock()
		n := r.waiting
		r.making = n > 0
		r.mu.Unlock()
		if n == 0 {
			return
		}
		r.closeIdle(n)
		time.Sleep(placeInterval)
	}
}
