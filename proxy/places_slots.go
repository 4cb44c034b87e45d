package proxy

import (
	"net"
	"os"
	"time"
)

// startWork gets h a slot to compute in, once its ClientHello is in. Their number is small, so that a storm of
// handshakes does not starve sessions. Addresses take turns, and each one's handshakes wait in the order in which they
// came. The wait ends without a slot at the handshake's deadline, when h loses its place, and with the Server.
func (h *handshake) startWork() error {
	p := h.server.pending
	queued, err := p.take(h)
	if !queued {
		return err
	}
	t := time.NewTimer(time.Until(h.deadline))
	defer t.Stop()
	select {
	case <-h.wake:
	case <-t.C:
		err = os.ErrDeadlineExceeded
	case <-h.server.done:
		err = net.ErrClosed
	}
	if err = p.taken(h, err); err != nil {
		return err
	}
	if _, broken := h.sock.HungUp(); broken { // meanwhile its peer has gone: computing would be in vain
		return net.ErrClosed
	}
	return nil
}

// stopWork gives the slot back while h waits for its peer.
func (h *handshake) stopWork() {
	p := h.server.pending
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.stage == stageComputing {
		p.leave(h)
	}
}

// take gives h a slot, or queues it where none is free.
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
	if h.stage == stageHello {
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
	h.queued = o.queued.PushBack(h)
	if o.turn == nil {
		o.turn = p.turns.PushBack(o)
	}
	return true, nil
}

// taken ends the wait for a slot. With an error h has none afterwards, whatever came first.
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
		p.rest(h, stageWaiting)
	}
	return err
}

// leave hands the slot of h to the next. The caller holds mu.
func (p *places) leave(h *handshake) {
	p.computing--
	p.rest(h, stageWaiting)
	p.grant()
}

// unqueue ends the turn of h. The caller holds mu.
func (p *places) unqueue(h *handshake) {
	o := h.origin
	o.queued.Remove(h.queued)
	h.queued = nil
	if o.queued.Len() == 0 {
		p.turns.Remove(o.turn)
		o.turn = nil
	}
	h.wake <- struct{}{} // has room: h gets one value for each time that it was queued
}

// grant gives the free slots to the addresses in turn. The caller holds mu.
func (p *places) grant() {
	for p.computing < p.slots && p.turns.Len() > 0 {
		o := p.turns.Front().Value.(*origin)
		p.turns.MoveToBack(o.turn)
		h := o.queued.Front().Value.(*handshake)
		p.unqueue(h)
		p.computing++
		h.stage = stageComputing
	}
}
