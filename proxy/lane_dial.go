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

// dialLocked has a lane opened, unless one is being opened. Where there is no token for it, it waits for one if awaited
// says that sessions wait for the lane.
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
	set.server.running.Add(1)     // the caller is counted too
	go set.dial(set.login, paced) // ends with the dial, Close waits for it
}

// dial opens one lane and proves it.
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
		set.barred = s.now() + int64(s.c.laneBusyRetry) // own connections show what it says
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

// awaitDial waits for the token of a lane, and tells those who wait for the lane when it is there. false: the Server is closed.
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

// connect is the dial; a panic of it is a failure.
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

// barsLanes: the backend answered, and something else than it should; or nobody knows.
func barsLanes(err error) bool {
	return errors.Is(err, backend.ErrUnproven) || errors.Is(err, backend.ErrState) || errors.Is(err, backend.ErrAuth) ||
		errors.Is(err, backend.ErrOpen) || errors.Is(err, backend.ErrUnasked) || errors.Is(err, backend.ErrNoPassword) || errors.Is(err, backend.ErrDialPanicked)
}

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
		up.Close() // Close may have looked before the lane was there
	}
	return l
}

func cancelWith(ctx context.Context, done <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-done:
		cancel()
	case <-ctx.Done():
	}
}
