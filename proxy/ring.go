package proxy

// ring is a queue, first in, first out. It grows by doubling, and only drop gives its memory back. The zero value is an
// empty queue. It is not safe for concurrent use.
type ring[T any] struct {
	all  []T // its length is zero or a power of two
	head int
	n    int
}

func (r *ring[T]) len() int { return r.n }

// cap returns how many elements there is room for.
func (r *ring[T]) cap() int { return len(r.all) }

// at returns the element that has i others before it. The pointer is valid until the next push or pop. hot
func (r *ring[T]) at(i int) *T { return &r.all[(r.head+i)&(len(r.all)-1)] }

// push appends x. A ring without memory first gets room for least elements, which must be a power of two. hot
func (r *ring[T]) push(x T, least int) {
	r.grow(least)
	r.all[(r.head+r.n)&(len(r.all)-1)] = x
	r.n++
}

// pushFront puts x before all other elements. least is that of push.
func (r *ring[T]) pushFront(x T, least int) {
	r.grow(least)
	r.head = (r.head - 1) & (len(r.all) - 1)
	r.all[r.head] = x
	r.n++
}

func (r *ring[T]) grow(least int) {
	if r.n < len(r.all) {
		return
	}
	bigger := make([]T, max(least, 2*len(r.all)))
	n := copy(bigger, r.all[r.head:])
	copy(bigger[n:], r.all[:r.head])
	r.all, r.head = bigger, 0
}

// pop removes the first element and returns it. The ring must not be empty. hot
func (r *ring[T]) pop() T {
	var none T
	first := &r.all[r.head]
	x := *first
	*first = none
	r.head = (r.head + 1) & (len(r.all) - 1)
	r.n--
	return x
}

// drop removes all elements and gives their memory back.
func (r *ring[T]) drop() { *r = ring[T]{} }
