package proxy

// maxPush bounds a push that is read and dropped. Nothing of it is held, but the replies after it wait. 64 MiB take less than
// a tenth of a second to read; more would delay every session on the lane for longer than closing the lane does.
import "dragontls/proxy/backend"

// skipPush drops the bytes of a push at the beginning of b, which may be the first or a later part of it, and returns their
// number. No command on a lane causes pushes, so another client has redirected its CLIENT TRACKING to this connection, which
// Redis allows with RESP3 only. A whole push between two replies leaves their order as it was, and the sessions on the lane
// go on. With RESP2, and for a push above maxPush, it returns errLanePush. The lane's reader calls it.
func (l *lane) skipPush(b []byte, now int64) (n int, err error) {
	r := &l.in
	if !r.push {
		r.push, r.size = true, 0
		l.finishRun(now) // a session that has all its replies is not in flight if the push closes the lane
		if !l.set.key.resp3 {
			return 0, errLanePush
		}
		l.notePush()
	}
	n, done, err := r.replies.Next(b)
	if err != nil {
		return n, err
	}
	if r.size += int64(n); r.size > backend.MaxPush {
		return n, errLanePush
	}
	r.push = !done
	return n, nil
}

// notePush marks the lane for replacement by renew, and logs that once for each lane.
func (l *lane) notePush() {
	if l.pushed.Swap(true) {
		return
	}
	s := l.set.server
	s.backend.Count("push")
	s.log.Warn().Msg("another client redirects its CLIENT TRACKING to a shared connection: its pushes are dropped, and the connection is replaced")
}

// renew dials a successor for a lane on which pushes arrive, and retires the lane once the successor is open. Until then the
// lane takes new work, so that no session waits for the dial. The sweeper calls it once a second for each such lane, and a
// key has at most one dial under way: however often another client redirects pushes to new lanes, it causes at most one new
// lane a second for each key.
func (set *laneSet) renew(l *lane) {
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.dialing || set.barred > set.server.now() {
		return
	}
	set.dialLocked(false)
	if set.dialing {
		set.outgoing = l
	}
}
