package proxy

import (
	"container/list"
	"net"
	"os"
	"time"
)

// startWork waits until h has a slot to compute in, unless it has one. The handshake calls it from its ClientHello on,
// whenever it has something to compute. There are few slots, so that a storm of handshakes does not starve sessions. Origins
// take turns, and the handshakes of one origin wait in a queue. After an error the handshake must end:
// its deadline has passed, it has lost its place, its peer is gone or the server closes.
func (h *handshake) startWork() error {
	p := h.server.pending
	first := !h.helloIn
	h.helloIn = true
	queued, err := p.take(h)
	if queued {
		err = h.awaitSlot()
	}
	if err != nil {
		return err
	}
	// Nobody waits for an answer whose peer has left. After its last flight a peer may send no more and wait still.
	if fin, broken := h.sock.HungUp(); broken || fin && first {
		return net.ErrClosed
	}
	return nil
}

// awaitSlot waits until h, which is in the queue, has a slot.
func (h *handshake) awaitSlot() (err error) {
	p := h.server.pending
	t := time.NewTimer(time.Until(h.deadline))
	defer t.Stop()
	select {
	case <-h.wake:
	case <-t.C:
		err = os.ErrDeadlineExceeded
	case <-h.server.done:
		err = net.ErrClosed
	}
	return p.taken(h, err)
}

// stopWork gives the slot of h back, if it has one, while h waits for its peer.
func (h *handshake) stopWork() { h.server.pending.stop(h, false) }

// stop is stopWork. mute means that what comes now does not make h wait for us: its peer has sent a part of its flight before, or h
// does not read.
func (p *places) stop(h *handshake, mute bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.mute = mute; mute {
		p.change()
	}
	if h.stage == stageComputing {
		p.leave(h)
	}
}

// take gives h a slot, unless it has one already. If none is free it puts h into the queue and returns true: the caller must
// wait for h.wake and then call taken. It returns an error if h has lost its place.
func (p *places) take(h *handshake) (queued bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch h.stage {
	case stageGone:
		return false, net.ErrClosed
	case stageComputing:
		return false, nil
	}
	p.unrest(h)
	p.change()
	begun := h.greeted
	if !begun {
		h.greeted = true
		p.greeted++
		h.number = p.greeted
	}
	if p.computing < p.slots {
		p.computing++
		h.stage = stageComputing
		return false, nil
	}
	if h.wake == nil {
		h.wake = make(chan struct{}, 1)
	}
	o := h.origin
	h.stage = stageQueued
	h.queued = o.queued.push(h, begun)
	if o.turn == nil {
		o.turn = p.turns.PushBack(o)
	}
	return true, nil
}

// taken ends the wait for a slot, which ended with err. If taken returns an error, h has no slot, even if it got one at the
// same moment.
func (p *places) taken(h *handshake, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case h.stage == stageGone:
		return net.ErrClosed
	case err == nil:
	case h.stage == stageComputing:
		p.leave(h)
	case h.stage == stageQueued:
		p.unqueue(h)
		p.rest(h)
	}
	return err
}

// queue holds the handshakes of one origin that wait for a slot. Those for which we have computed before come first, so that what was
// begun is finished: in a storm all would else be late. Guarded by places.mu.
type queue struct{ begun, fresh list.List }

func (q *queue) len() int { return q.begun.Len() + q.fresh.Len() }

func (q *queue) push(h *handshake, begun bool) *list.Element {
	if begun {
		return q.begun.PushBack(h)
	}
	return q.fresh.PushBack(h)
}

// remove takes an element out of the list in which it is.
func (q *queue) remove(e *list.Element) {
	q.begun.Remove(e)
	q.fresh.Remove(e)
}

// first returns the handshake whose turn it is. The queue must not be empty.
func (q *queue) first() *handshake {
	e := q.begun.Front()
	if e == nil {
		e = q.fresh.Front()
	}
	return e.Value.(*handshake)
}

// last returns the handshake whose turn comes last, or nil.
func (q *queue) last() *handshake {
	e := q.fresh.Back()
	if e == nil {
		e = q.begun.Back()
	}
	if e == nil {
		return nil
	}
	return e.Value.(*handshake)
}

// leave gives the slot of h to the next in the queue. The caller must hold mu.
func (p *places) leave(h *handshake) {
	p.computing--
	h.since = p.now()
	p.rest(h)
	p.grant()
}

// unqueue takes h out of the queue and wakes its goroutine. The caller must hold mu.
func (p *places) unqueue(h *handshake) {
	o := h.origin
	o.queued.remove(h.queued)
	h.queued = nil
	if o.queued.len() == 0 {
		p.turns.Remove(o.turn)
		o.turn = nil
	}
	h.wake <- struct{}{} // never waits: one value for each time that h was queued
}

// grant gives the free slots to the origins in turn. The caller must hold mu.
func (p *places) grant() {
	for p.computing < p.slots && p.turns.Len() > 0 {
		o := p.turns.Front().Value.(*origin)
		p.turns.MoveToBack(o.turn)
		h := o.queued.first()
		p.unqueue(h)
		p.computing++
		h.stage = stageComputing
	}
}
