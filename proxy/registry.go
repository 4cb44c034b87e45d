package proxy

import "sync"

// registry is a set of what is alive. The zero value is empty. Safe for concurrent use.
type registry[T comparable] struct {
	mu  sync.Mutex
	all map[T]struct{} // guarded by mu
}

func (r *registry[T]) add(x T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = make(map[T]struct{})
	}
	r.all[x] = struct{}{}
}

func (r *registry[T]) remove(x T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, x)
}

// list returns a copy, in no order.
func (r *registry[T]) list() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]T, 0, len(r.all))
	for x := range r.all {
		all = append(all, x)
	}
	return all
}
