package ring

import (
	"math/rand/v2"
	"testing"
)

func TestRingIsAQueue(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	var r Ring[int]
	var want []int
	for i := range 20000 {
		switch k := rnd.IntN(5); {
		case k < 3:
			r.Push(i, 2)
			want = append(want, i)
		case len(want) > 0:
			if got := r.Pop(); got != want[0] {
				t.Fatalf("seed %d, step %d: popped %d, want %d", seed, i, got, want[0])
			}
			want = want[1:]
		}
		if r.Len() != len(want) || r.Cap() < r.Len() {
			t.Fatalf("seed %d, step %d: %d of %d, want %d", seed, i, r.Len(), r.Cap(), len(want))
		}
		if n := len(want); n > 0 {
			if at := rnd.IntN(n); *r.At(at) != want[at] {
				t.Fatalf("seed %d, step %d: %d at %d, want %d", seed, i, *r.At(at), at, want[at])
			}
		}
	}
	for range r.Len() {
		r.Pop()
	}
	for i := range r.all {
		if r.all[i] != 0 {
			t.Fatalf("%d is kept at %d", r.all[i], i)
		}
	}
	if r.Drop(); r.Cap() != 0 {
		t.Errorf("%d are kept", r.Cap())
	}
}
