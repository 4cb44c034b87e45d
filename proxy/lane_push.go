package proxy

import "dragontls/proxy/backend"

// skipPush reads and drops the next bytes of a push, of which b begins with the first or a later part, and returns how
// many they were. No command on a lane causes pushes, so another client has redirected its CLIENT TRACKING to this
// connection, which Redis allows with RESP3 only. A whole push between two replies leaves their order as it was, and whoever has a command on the lane goes
// on. The lane's reader calls it.
func (l *lane) skipPush(b []byte, now int64) (n int, err error) {
	r := &l.in
	if !r.push {
		r.push, r.size = true, 0
		l.finishRun(now) // whoever has all its replies has nothing to do with what comes now
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

// notePush marks the lane for replacement, and says so once for each lane.
func (l *lane) notePush() {
	if l.pushed.Swap(true) {
		return
	}
	s := l.set.server
	s.backend.Count("push")
	s.log.Warn().Msg("another client redirects its CLIENT TRACKING to a shared connection: its pushes are dropped, and the connection is replaced")
}

// renew dials a successor for a lane on which pushes come, and retires the lane once the successor is there. Until then
// the lane takes new work, so that nobody waits for the dial. The sweeper calls it once a second for each such lane, and a
// key has at most one dial under way: however often somebody redirects pushes to new lanes, a key gets at most one lane
// a second for it.
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
