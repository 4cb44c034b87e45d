package proxy

import (
	"context"
	"errors"
	"io"
	"slices"
	"syscall"

	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// dialLocked starts a dial of a lane, unless one is under way. If the identity has no dial token left, the dial first waits
// for one if awaited is set, which means that sessions wait for the lane; otherwise there is no dial. The caller must hold
// set.mu.
func (set *laneSet) dialLocked(awaited bool) {
	if set.dialing {
		return
	}
	s := set.server
	paced := !s.backend.TokensOf(netio.QuotaKey{Identity: set.key.identity}).Lanes.Try()
	if paced && !awaited {
		return
	}
	set.dialing, set.paced = true, paced
	set.server.running.Add(1)     // Close cannot have finished waiting: the caller is counted in running too
	go set.dial(set.login, paced) // ends with the dial, Close waits for it
}

// dial is the goroutine that opens one lane, proves it and wakes the sessions that wait for it.
func (set *laneSet) dial(l backend.Login, paced bool) {
	s := set.server
	defer s.running.Done()
	up, err := (*backend.Conn)(nil), errEnded
	if !paced || set.awaitDial() {
		up, err = set.connect(l)
	}
	set.mu.Lock()
	set.dialing = false
	set.err = err
	var opened *lane
	outgoing := set.outgoing
	set.outgoing = nil
	if err == nil {
		opened = set.addLocked(up)
	} else if barsLanes(err) {
		set.barred = s.now() + int64(s.c.laneRetry)
	} else if errors.Is(err, backend.ErrBusy) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		set.barred = s.now() + int64(s.c.laneBusyRetry) // until then sessions use their own connections, and see its error
	}
	close(set.changed)
	set.changed = make(chan struct{})
	set.mu.Unlock()
	if opened != nil {
		if _, late := s.backend.DialledBeforeMove(up); late {
			opened.retire()
		}
		if outgoing != nil {
			outgoing.retire()
		}
	}
	if err != nil && barsLanes(err) {
		s.backend.Count("no_lanes")
		s.log.Warn().Err(err).Msg("no shared connections for some clients: each uses its own")
	}
}

// awaitDial waits for a token to dial a lane, then wakes the sessions that wait for the lane, whose time limit begins only
// now. It returns false if the Server is closed.
func (set *laneSet) awaitDial() bool {
	s := set.server
	tokens := s.backend.TokensOf(netio.QuotaKey{Identity: set.key.identity})
	tokens.NoteWait(set.key.user)
	ok := tokens.Lanes.Await(s.done)
	set.mu.Lock()
	set.paced = false
	close(set.changed)
	set.changed = make(chan struct{})
	set.mu.Unlock()
	return ok
}

// connect dials and proves one connection for a lane. It returns errDialPanicked if the dial panics.
func (set *laneSet) connect(l backend.Login) (up *backend.Conn, err error) {
	s := set.server
	defer func() {
		if v := recover(); v != nil {
			s.lanePanic(v)
			up, err = nil, backend.ErrDialPanicked
		}
	}()
	l.Account = s.buffers.NewAccount()
	l.Account.Join(netio.QuotaKey{Identity: set.key.identity})
	defer func() {
		if up == nil {
			s.closeAccount(l.Account)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), s.c.unavailableTimeout)
	defer cancel()
	go cancelWith(ctx, s.done, cancel) // ends with ctx; nobody waits for it
	up, err = s.backend.Dial(ctx, l)
	if errors.Is(err, backend.ErrNoTransactions) {
		l.Proof = backend.WithoutTransactions
		up, err = s.backend.Dial(ctx, l)
	}
	return up, err
}

// barsLanes reports whether err means that no lane of this key may be tried for laneRetry: the backend answered the set-up
// wrongly, the user's password could not be read, or the dial panicked. An unreachable backend does not count.
func barsLanes(err error) bool {
	return errors.Is(err, backend.ErrUnproven) || errors.Is(err, backend.ErrState) || errors.Is(err, backend.ErrAuth) ||
		errors.Is(err, backend.ErrOpen) || errors.Is(err, backend.ErrUnasked) || errors.Is(err, backend.ErrNoPassword) || errors.Is(err, backend.ErrDialPanicked)
}

// addLocked makes a lane of a proven connection, starts its goroutines and opens it to sessions. Those that wait for room on
// another lane choose again. The caller must hold set.mu.
func (set *laneSet) addLocked(up *backend.Conn) *lane {
	s := set.server
	l := &lane{set: set, up: up, opened: s.now(), wake: make(chan struct{}, 1), closed: make(chan struct{})}
	l.idleSince, l.nonceAt, l.pulse.window = l.opened, l.opened, l.opened
	l.in.replies.Strict = true
	if up.Pushed {
		l.notePush()
	}
	s.openLanes.Add(1)
	s.lanes.live.add(l)
	s.running.Add(1)
	s.running.Add(1)
	go l.read()  // ends with the connection, Close waits for it
	go l.write() // ends with read, Close waits for it
	old := set.lanes()
	lanes := append(slices.Clone(old), l)
	set.open.Store(&lanes)
	for _, o := range old {
		o.dismiss()
	}
	if s.isDone() {
		up.Close() // Close may have listed the lanes before this one was among them
	}
	return l
}

// cancelWith calls cancel when done is closed. It returns then, or when ctx ends.
func cancelWith(ctx context.Context, done <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-done:
		cancel()
	case <-ctx.Done():
	}
}
