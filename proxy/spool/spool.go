// Package spool is a bounded queue between goroutines that must not wait and a writer that may stand still. The log and
// the audit log go through one each.
package spool

import (
	"sync/atomic"
	"time"
)

// Options of a Queue. All fields but Size are required.
type Options[T any] struct {
	Size int // items that wait to be written; 4096
	// Write writes one item, and may take any time. Only the queue's goroutine calls it.
	Write func(T)
	// Gap writes that n items were dropped, and reports whether it could. It is called by the queue's goroutine, in
	// the place of the gap: once half of the queue is free again, and at the end.
	Gap func(n uint64) bool
}

const defaultSize = 4096

// Queue writes items in order, in a goroutine of its own. What does not fit is dropped and counted. Put, Drop and
// Dropped may be called concurrently.
type Queue[T any] struct {
	o       Options[T]
	items   chan T
	dropped atomic.Uint64
	told    uint64 // of dropped; run's
	running atomic.Bool
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed by run
}

// New makes a Queue. It keeps what is put, but writes nothing before Start.
func New[T any](o Options[T]) *Queue[T] {
	if o.Size == 0 {
		o.Size = defaultSize
	}
	return &Queue[T]{o: o, items: make(chan T, o.Size), stop: make(chan struct{}), stopped: make(chan struct{})}
}

// Start begins to write.
func (q *Queue[T]) Start() {
	q.running.Store(true)
	go q.run() // stopped by Close, which waits for it
}

// Put never waits. It returns false if the item was dropped. hot
func (q *Queue[T]) Put(item T) bool {
	select {
	case q.items <- item:
		return true
	default:
		q.dropped.Add(1)
		return false
	}
}

// Drop counts an item that its owner could not put or write.
func (q *Queue[T]) Drop() { q.dropped.Add(1) }

// Dropped returns how many items were ever dropped.
func (q *Queue[T]) Dropped() uint64 { return q.dropped.Load() }

// Close writes what is queued, for at most timeout, and reports whether all of it was written. A write that stands
// still is left alone. Call it once, when nobody puts any more.
func (q *Queue[T]) Close(timeout time.Duration) bool {
	if !q.running.Load() {
		return true
	}
	close(q.stop)
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-q.stopped:
		return true
	case <-t.C:
		return false
	}
}

// Stopped is closed when nothing is written any more.
func (q *Queue[T]) Stopped() <-chan struct{} { return q.stopped }

func (q *Queue[T]) run() {
	defer close(q.stopped)
	for {
		select {
		case item := <-q.items:
			q.write(item)
			continue
		case <-q.stop:
		}
		for {
			select {
			case item := <-q.items:
				q.write(item)
			default:
				q.tell()
				return
			}
		}
	}
}

func (q *Queue[T]) write(item T) {
	if 2*len(q.items) <= cap(q.items) {
		q.tell()
	}
	q.o.Write(item)
}

func (q *Queue[T]) tell() {
	if d := q.dropped.Load(); d != q.told && q.o.Gap(d-q.told) {
		q.told = d
	}
}
