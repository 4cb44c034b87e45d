package proxy

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRingIsAQueue(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var r ring[int]
	var want []int
	for i := range 20000 {
		switch k := rnd.IntN(5); {
		case k < 2:
			r.push(i, 2)
			want = append(want, i)
		case k == 2:
			r.pushFront(i, 2)
			want = slices.Insert(want, 0, i)
		case len(want) > 0:
			if got := r.pop(); got != want[0] {
				t.Fatalf("seed %d, step %d: popped %d, want %d", seed, i, got, want[0])
			}
			want = want[1:]
		}
		if r.len() != len(want) || r.cap() < r.len() {
			t.Fatalf("seed %d, step %d: %d of %d, want %d", seed, i, r.len(), r.cap(), len(want))
		}
		if n := len(want); n > 0 {
			if at := rnd.IntN(n); *r.at(at) != want[at] {
				t.Fatalf("seed %d, step %d: %d at %d, want %d", seed, i, *r.at(at), at, want[at])
			}
		}
	}
	for range r.len() {
		r.pop()
	}
	for i := range r.all {
		if r.all[i] != 0 {
			t.Fatalf("%d is kept at %d", r.all[i], i)
		}
	}
	if r.drop(); r.cap() != 0 {
		t.Errorf("%d are kept", r.cap())
	}
}
