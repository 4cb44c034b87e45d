package certs

import "sync"

// bounded is a map that holds at most max entries: a new one takes the place of
// any other. It may be used concurrently.
type bounded[K comparable, V any] struct {
	max int

	mu sync.Mutex
	m  map[K]V // guarded by mu
}

func newBounded[K comparable, V any](limit int) *bounded[K, V] {
	return &bounded[K, V]{max: limit, m: make(map[K]V)}
}

func (b *bounded[K, V]) get(k K) (V, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.m[k]
	return v, ok
}

func (b *bounded[K, V]) put(k K, v V) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.putLocked(k, v)
}

func (b *bounded[K, V]) putLocked(k K, v V) {
	if _, ok := b.m[k]; !ok && len(b.m) >= b.max {
		for other := range b.m {
			delete(b.m, other)
			break
		}
	}
	b.m[k] = v
}

// update replaces the value of k by what f makes of it; f gets the zero value
// where there is none.
func (b *bounded[K, V]) update(k K, f func(V) V) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.putLocked(k, f(b.m[k]))
}
