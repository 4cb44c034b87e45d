package lane

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
func (set *Set) dialLocked(awaited bool) {
	if set.dialing {
		return
	}
	c := &set.all.c
	paced := !c.Backend.TokensOf(netio.QuotaKey{Identity: set.key.Identity}).Lanes.Try()
	if paced && !awaited {
		return
	}
	set.dialing, set.paced = true, paced
	c.Running.Add(1)              // Close cannot have finished waiting: the caller is counted in running too
	go set.dial(set.login, paced) // ends with the dial, Close waits for it
}

// dial is the goroutine that opens one lane, proves it and wakes the sessions that wait for it.
func (set *Set) dial(l backend.Login, paced bool) {
	c := &set.all.c
	defer c.Running.Done()
	up, err := (*backend.Conn)(nil), errEnded
	if !paced || set.awaitDial() {
		up, err = set.connect(l)
	}
	if err != nil && barsLanes(err) {
		c.Backend.Count("no_lanes")
		line := c.Log.Warn().Str("backend", c.Backend.URL()).Str("reason", backend.Reason(err)).Str("error", backend.Printable(err.Error()))
		if set.key.User != "" {
			line = line.Str("user", set.key.User)
		}
		line.Dur("pause", c.Retry).Msg("no shared connections for some clients: each uses its own")
	}
	set.mu.Lock()
	set.dialing = false
	cutAgain := isCut(err) && isCut(set.err)
	set.err = err
	var opened *Lane
	outgoing := set.outgoing
	set.outgoing = nil
	if err == nil {
		opened = set.addLocked(up)
	} else if barsLanes(err) {
		set.barred = c.Now().Add(c.Retry)
	} else if errors.Is(err, backend.ErrBusy) || cutAgain {
		set.barred = c.Now().Add(c.BusyRetry) // until then sessions use their own connections, and see its error
	}
	close(set.changed)
	set.changed = make(chan struct{})
	set.mu.Unlock()
	if opened != nil {
		if _, late := c.Backend.DialledBeforeMove(up); late {
			opened.Retire()
		}
		if outgoing != nil {
			outgoing.Retire()
		}
	}
}

// awaitDial waits for a token to dial a lane, then wakes the sessions that wait for the lane, whose time limit begins only
// now. It returns false if the Server is closed.
func (set *Set) awaitDial() bool {
	c := &set.all.c
	tokens := c.Backend.TokensOf(netio.QuotaKey{Identity: set.key.Identity})
	tokens.NoteWait(set.key.User)
	ok := tokens.Lanes.Await(c.Done)
	set.mu.Lock()
	set.paced = false
	close(set.changed)
	set.changed = make(chan struct{})
	set.mu.Unlock()
	return ok
}

// connect dials and proves one connection for a lane. It returns errDialPanicked if the dial panics.
func (set *Set) connect(l backend.Login) (up *backend.Conn, err error) {
	c := &set.all.c
	defer func() {
		if v := recover(); v != nil {
			c.Panicked(v)
			up, err = nil, backend.ErrDialPanicked
		}
	}()
	l.Account = c.Buffers.NewAccount()
	l.Account.Join(netio.QuotaKey{Identity: set.key.Identity})
	defer func() {
		if up == nil {
			c.CloseAccount(l.Account)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), c.Unavailable)
	defer cancel()
	go backend.CancelWith(ctx, c.Done, cancel) // ends with ctx; nobody waits for it
	up, err = c.Dial(ctx, l)
	if errors.Is(err, backend.ErrNoTransactions) {
		l.Proof = backend.WithoutTransactions
		up, err = c.Dial(ctx, l)
	}
	return up, err
}

// barsLanes reports whether err means that no lane of this key may be tried for Timeouts.Retry: the backend answered the set-up
// wrongly, the user's password could not be read, or the dial panicked. An unreachable backend does not count.
func barsLanes(err error) bool {
	return errors.Is(err, backend.ErrUnproven) || errors.Is(err, backend.ErrState) || errors.Is(err, backend.ErrAuth) ||
		errors.Is(err, backend.ErrOpen) || errors.Is(err, backend.ErrUnasked) || errors.Is(err, backend.ErrNoPassword) || errors.Is(err, backend.ErrDialPanicked)
}

// isCut reports whether the backend closed the connection without an answer. Over TLS, Redis does so while its maxclients is
// reached. A backend whose process ends does it once: the next dial tells more.
func isCut(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// addLocked makes a lane of a proven connection, starts its goroutines and opens it to sessions. Those that wait for room on
// another lane choose again. The caller must hold set.mu.
func (set *Set) addLocked(up *backend.Conn) *Lane {
	c := &set.all.c
	l := &Lane{set: set, up: up, opened: c.Now(), wake: make(chan struct{}, 1), closed: make(chan struct{})}
	l.pulse.idleSince, l.nonceAt, l.pulse.window = l.opened, l.opened, l.opened
	l.in.replies.Strict = true
	l.in.replies.Sought = backend.AnswersAsReplica
	if up.Pushed {
		l.notePush()
	}
	set.all.count.Add(1)
	set.all.live.Store(l, nil)
	c.Running.Add(1)
	c.Running.Add(1)
	go l.read()  // ends with the connection, Close waits for it
	go l.write() // ends with read, Close waits for it
	old := set.lanes()
	lanes := append(slices.Clone(old), l)
	set.open.Store(&lanes)
	for _, o := range old {
		o.dismiss()
	}
	select {
	case <-c.Done:
		up.Close() // Close may have listed the lanes before this one was among them
	default:
	}
	return l
}

// renew dials a successor for a lane on which pushes arrive, and retires the lane once the successor is open. Until then the
// lane takes new work, so that no session waits for the dial. Sweep calls it once a second for each such lane, and a key has
// at most one dial under way: however often another client redirects pushes to new lanes, it causes at most one new lane a
// second for each key.
func (set *Set) renew(l *Lane) {
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.dialing || set.barred > set.all.c.Now() {
		return
	}
	set.dialLocked(false)
	if set.dialing {
		set.outgoing = l
	}
}
