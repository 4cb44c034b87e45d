package proxy

import "sync"

// drainShare is how many clients one goroutine writes to, one after the other. If replies came for more clients, helpers
// share the work.
const drainShare = 8

// drainReady writes to the clients for which the last read brought replies. The lane's reader calls it. hot
func (l *lane) drainReady() {
	ready := l.in.ready
	for len(ready) > drainShare {
		h := newWriteHelper()
		h.n = copy(h.turns[:], ready)
		ready = ready[h.n:]
		go h.run()
	}
	for _, t := range ready {
		t.drainNow()
	}
	clear(l.in.ready)
	l.in.ready = l.in.ready[:0]
}

// writeHelper is a goroutine that writes to some of the clients, and returns to the pool when it is done.
type writeHelper struct {
	turns [drainShare]writeTurn
	n     int
	run   func()
}

var writeHelpers sync.Pool

func newWriteHelper() *writeHelper {
	if h, ok := writeHelpers.Get().(*writeHelper); ok {
		return h
	}
	h := new(writeHelper)
	h.run = h.drain
	return h
}

func (h *writeHelper) drain() {
	for i, t := range h.turns[:h.n] {
		h.turns[i] = noTurn
		t.drainNow()
	}
	writeHelpers.Put(h)
}
