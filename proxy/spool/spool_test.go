package spool

import (
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writer keeps what a queue writes; each write takes a value of allow, where that is not nil.
type writer struct {
	allow chan struct{}
	begun chan int // gets each item before it is written; nil: nobody asks

	mu   sync.Mutex
	got  []int
	gaps []uint64
	deaf bool // gaps cannot be written
}

func (w *writer) write(item int) {
	if w.begun != nil {
		w.begun <- item
	}
	if w.allow != nil {
		<-w.allow
	}
	w.mu.Lock()
	w.got = append(w.got, item)
	w.mu.Unlock()
}

func (w *writer) gap(n uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.deaf {
		w.gaps = append(w.gaps, n)
	}
	return !w.deaf
}

func (w *writer) queue(size int) *Queue[int] {
	q := New(Options[int]{Size: size, Write: w.write, Gap: w.gap})
	q.Start()
	return q
}

func TestWritesAllInOrder(t *testing.T) {
	w := &writer{}
	q := w.queue(2000)
	for i := range 1000 {
		if !q.Put(i) {
			t.Fatalf("%d was dropped", i)
		}
	}
	if !q.Close(time.Minute) {
		t.Fatal("not all was written")
	}
	if len(w.got) != 1000 || !slices.IsSorted(w.got) || len(w.gaps) != 0 {
		t.Errorf("wrote %d items, sorted %v, gaps %v", len(w.got), slices.IsSorted(w.got), w.gaps)
	}
}

func TestDropsWhileTheWriterStandsStillAndTellsOnce(t *testing.T) {
	w := &writer{allow: make(chan struct{}), begun: make(chan int, 100)}
	q := w.queue(4)
	q.Put(0)
	<-w.begun // nothing but its end is left to wait for
	for i := 1; i <= 10; i++ {
		if q.Put(i) != (i <= 4) {
			t.Fatalf("item %d of a queue of 4", i)
		}
	}
	q.Drop()
	if n := q.Dropped(); n != 7 {
		t.Errorf("dropped %d, want 7", n)
	}
	close(w.allow)
	if !q.Close(time.Minute) {
		t.Fatal("not all was written")
	}
	if want := []int{0, 1, 2, 3, 4}; !slices.Equal(w.got, want) || !slices.Equal(w.gaps, []uint64{7}) {
		t.Errorf("wrote %v, gaps %v", w.got, w.gaps)
	}
}

func TestAGapThatCannotBeWrittenIsToldLater(t *testing.T) {
	w := &writer{deaf: true, allow: make(chan struct{}, 1), begun: make(chan int)}
	q := w.queue(4)
	q.Drop()
	q.Put(1)
	<-w.begun // its gap could not be written
	w.mu.Lock()
	w.deaf = false
	w.mu.Unlock()
	q.Drop()
	w.allow <- struct{}{}
	if !q.Close(time.Minute) || !slices.Equal(w.gaps, []uint64{2}) {
		t.Errorf("gaps %v, want one of 2", w.gaps)
	}
}

func TestCloseLeavesAWriterThatStandsStill(t *testing.T) {
	w := &writer{allow: make(chan struct{})}
	q := w.queue(0)
	q.Put(1)
	if q.Close(time.Millisecond) {
		t.Error("all was written, they say")
	}
	close(w.allow)
	<-q.Stopped()
}

func TestCloseWithoutStart(t *testing.T) {
	if !New(Options[int]{}).Close(time.Minute) {
		t.Error("something was to be written")
	}
}
