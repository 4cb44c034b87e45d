// Package ring is a queue in one block of memory. The reply order of a session and the slots of a lane are such queues.
package ring

// Ring is a queue, first in, first out. It grows by doubling, and only Drop gives its memory back. The zero value is an
// empty queue. It is not safe for concurrent use.
type Ring[T any] struct {
	all  []T // its length is zero or a power of two
	head int
	n    int
}

// Len returns how many elements are in the queue.
func (r *Ring[T]) Len() int { return r.n }

// Cap returns how many elements there is room for.
func (r *Ring[T]) Cap() int { return len(r.all) }

// At returns the element that has i others before it. The pointer is valid until the next push or pop. hot
func (r *Ring[T]) At(i int) *T { return &r.all[(r.head+i)&(len(r.all)-1)] }

// Push appends x. A ring without memory first gets room for least elements, which must be a power of two. hot
func (r *Ring[T]) Push(x T, least int) {
	r.grow(least)
	r.all[(r.head+r.n)&(len(r.all)-1)] = x
	r.n++
}

func (r *Ring[T]) grow(least int) {
	if r.n < len(r.all) {
		return
	}
	bigger := make([]T, max(least, 2*len(r.all)))
	n := copy(bigger, r.all[r.head:])
	copy(bigger[n:], r.all[:r.head])
	r.all, r.head = bigger, 0
}

// Pop removes the first element and returns it. The ring must not be empty. hot
func (r *Ring[T]) Pop() T {
	var none T
	first := &r.all[r.head]
	x := *first
	*first = none
	r.head = (r.head + 1) & (len(r.all) - 1)
	r.n--
	return x
}

// Drop removes all elements and gives their memory back.
func (r *Ring[T]) Drop() { *r = Ring[T]{} }
