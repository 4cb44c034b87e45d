package proxy

import "time"

// door is where a newcomer waits while all places are taken: the accept loop waits with it, and later clients wait in the
// kernel's queue. So a storm of honest handshakes takes longer, and none of it is turned away.
//
// It may wait for so long only as handshakes succeed: each that does pays for doorPay more. Peers that never finish a handshake
// soon find the door worn out, and so newcomers replace them, or are refused, at once. Guarded by places.mu.
type door struct {
	most, left time.Duration // how long newcomers may wait in all, at most and now
	waited     uint64        // newcomers that have ever waited
}

const (
	// doorPay is several times what a handshake takes us, since its client and others want the same processors.
	doorPay = 10 * time.Millisecond
	// silentAfter is how long a handshake has waited for its peer when it loses its place to a newcomer that could still wait. A
	// client that opens many connections may be busy for so long.
	silentAfter = 3 * time.Second
	// readWithin is how long a newcomer waits at most, whatever is left of its patience, until we have read what the peer has sent
	// that it would replace. That takes no longer than the scheduler does.
	readWithin = 100 * time.Millisecond
)

// enter gives h a place as add does, but lets it wait at the door first. done ends the wait; then h has no place. The accept loop
// calls it.
func (p *places) enter(h *handshake, done <-chan struct{}) (loser *handshake, ok bool) {
	loser, ok, wait := p.arrives(h)
	if loser != nil || !ok {
		p.limit.Reached(h.describe)
	}
	began := p.now()
	limit := began.Add(p.door.most + readWithin)
	for wait > 0 {
		t := time.NewTimer(wait)
		select {
		case <-p.changed:
		case <-t.C:
		case <-done:
			t.Stop()
			return nil, false
		}
		t.Stop()
		now := p.now()
		loser, ok, wait = p.tryAdd(h, now.Sub(began), now < limit)
		began = now
	}
	return loser, ok
}

// add gives h a place. If all are taken, another handshake loses its own to h, and add returns that loser: the caller must
// close its socket. ok is false if no handshake may be closed for h; then h has no place.
func (p *places) add(h *handshake) (loser *handshake, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted++
	loser, ok, _ = p.addLocked(h, false)
	return loser, ok
}

// addIfFree gives h a place if there is a free one, and reports whether it did: nobody loses a place to h, and h does not wait.
func (p *places) addIfFree(h *handshake) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) >= p.max {
		return false
	}
	p.accepted++
	_, ok, _ := p.addLocked(h, false)
	return ok
}

// arrives is add for a newcomer that may wait: if wait is not 0, h has no place yet, and the caller is to call tryAdd after wait or
// once p.changed tells of a change.
func (p *places) arrives(h *handshake) (loser *handshake, ok bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted++
	if loser, ok, wait = p.addLocked(h, true); wait > 0 {
		p.door.waited++
	}
	return loser, ok, wait
}

// tryAdd tries again what arrives did, after h has waited for another d. It may wait on if mayWait is true.
func (p *places) tryAdd(h *handshake, d time.Duration, mayWait bool) (loser *handshake, ok bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.door.left = max(0, p.door.left-d)
	return p.addLocked(h, mayWait)
}

// patience returns how long a newcomer that may wait does so before it replaces loser or, if that is nil, is refused. The caller must
// hold mu.
func (p *places) patience(loser *handshake) time.Duration {
	switch {
	case loser == nil, loser.stage == stageQueued:
		return p.door.left
	case loser.hasArrived():
		return readWithin
	}
	return max(0, min(p.door.left, silentAfter-p.now().Sub(loser.since)))
}

// hasArrived reports whether the peer of a handshake that waits for it has sent its flight, which we have not read yet: in truth the
// handshake waits for us. The caller must hold mu.
func (h *handshake) hasArrived() bool { return !h.mute && h.sock.Readable() }

// finish takes the place of h away after its handshake has succeeded. It reports whether h still had one.
func (p *places) finish(h *handshake) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.stage == stageGone {
		return false
	}
	p.door.left = min(p.door.most, p.door.left+doorPay)
	p.drop(h)
	return true
}

// newcomersWaited returns how many newcomers have ever waited at the door.
func (p *places) newcomersWaited() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.door.waited
}

// change wakes the newcomer at the door, if there is one. The caller must hold mu.
func (p *places) change() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
