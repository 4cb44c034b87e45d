package backend

import (
	"testing"
	"time"

	"dragontls/proxy/clock"
)

// While new connections get the answer of a replica too, the pause between moves in place doubles, up to half a minute; after a time
// without such answers, it begins anew.
func TestPauseBetweenMovesInPlaceDoubles(t *testing.T) {
	var now time.Duration
	var moved []time.Duration
	a := newAddress(&Config{ResolveInterval: time.Second, Now: func() clock.Instant { return clock.Instant(now) }, Moved: func(m Move) {
		if !m.InPlace {
			t.Error("it moved to another address")
		}
		moved = append(moved, now)
	}})
	b := &Backend{address: a, c: Config{Target: nowhere}}
	b.recoveries = make(map[string]uint64)
	want := []time.Duration{time.Hour, 1, 3, 7, 15, 31, 61, 91, 121}
	for i := range want[1:] {
		want[1+i] = time.Hour + want[1+i]*time.Second
	}
	for now = time.Hour; now < time.Hour+150*time.Second; now += 100 * time.Millisecond {
		c := &Conn{moves: a.movesSoFar()} // a new one
		if old := (&Conn{moves: c.moves - 1}); c.moves > 0 && b.Suspect(old) {
			t.Fatal("a connection from before the move caused another one")
		}
		if b.Suspect(c) {
			if b.Suspect(c) {
				t.Fatal("it was suspected twice")
			}
			b.moveInPlace(c.moves)
		}
	}
	if len(moved) != len(want) {
		t.Fatalf("moved at %v, want %v", moved, want)
	}
	for i := range want {
		if moved[i] != want[i] {
			t.Fatalf("moved at %v, want %v", moved, want)
		}
	}
	now += suspectMemory + time.Minute
	for range 2 {
		if !b.Suspect(&Conn{moves: a.movesSoFar()}) {
			t.Fatal("a failover goes unnoticed")
		}
		b.moveInPlace(a.movesSoFar())
		now += time.Second
	}
}

// A backend that has moved to another address since it was suspected does not move in place.
func TestBackendThatHasMovedDoesNotMoveInPlace(t *testing.T) {
	a := newAddress(&Config{Now: func() clock.Instant { return 1 }, Moved: func(m Move) {
		if m.InPlace {
			t.Error("it moved in place")
		}
	}})
	b := &Backend{address: a, c: Config{Target: nowhere}}
	b.recoveries = make(map[string]uint64)
	a.accepted("backend.test:1", "127.0.0.1:1", 0)
	if !b.Suspect(&Conn{}) {
		t.Fatal("it was not suspected")
	}
	moves, suspected := a.recall()
	if a.accepted("backend.test:1", "127.0.0.2:1", 0); !suspected {
		t.Fatal("the suspicion is lost")
	}
	b.moveInPlace(moves)
	if _, suspected := a.recall(); suspected || a.movesSoFar() != 1 {
		t.Errorf("suspected: %v, moved %d times", suspected, a.movesSoFar())
	}
}

// A connection whose dial had begun when the backend moved in place is one from before.
func TestConnectionDialledWhileTheBackendMovesInPlaceIsFromBefore(t *testing.T) {
	a := newAddress(&Config{Now: func() clock.Instant { return 1 }, Moved: func(Move) {}})
	b := &Backend{address: a, c: Config{Target: nowhere}}
	b.recoveries = make(map[string]uint64)
	a.accepted("backend.test:1", "127.0.0.1:1", 0)
	b.moveInPlace(0)
	if at := a.accepted("backend.test:1", "127.0.0.1:1", 0); at != 0 {
		t.Errorf("it counts as one after %d moves", at)
	}
	if at := a.accepted("backend.test:1", "127.0.0.1:1", 1); at != 1 {
		t.Errorf("one that was dialled later counts as one after %d moves", at)
	}
}

func nowhere() (string, string, error) { return "unix", "/nowhere", nil }
