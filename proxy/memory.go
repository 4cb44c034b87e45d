package proxy

import (
	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// What a peer can make the proxy hold, what bounds it, and how and where it is counted. "held" counts towards the share of
// the client's identity and towards Config.BufferLimit, "kept" and "fixed" towards BufferLimit only.
//
//	what                                           bound for one                        counted
//	a socket whose handshake is not finished       HandshakeMemory                      set aside, see Config.BufferLimit
//	a session: structs, stacks, TLS state          sessionCost                          fixed, startSession
//	a connection to the backend: the same          backend.ConnectionCost               fixed, Backend.Dial
//	room in crypto/tls for the longest record      2 x 16 KiB                           kept, or held while the record is incomplete: CountTLS
//	half a handshake message after the handshake   2 x 256 KiB                          held: CountTLS
//	what we read and crypto/tls has not taken      a page                               held: Socket.Read
//	half a command, or commands not yet judged     a chunk                              held: clientSide.buf
//	canonical commands not yet written             a chunk, 4 more for a long inline    held: clientSide.out, countBatch
//	their slots and notes                          256 slots of ours, one a command     held: countBatch
//	slots and notes of what is owed                maxSlots and one batch               held: replyOrder.pushLocked
//	replies of lanes that a client does not take   SESSION_BUFFER and a chunk           held: outbox
//	a write that a client does not take            a record, and a page of backlog      held: a stuck Socket
//	a reply of an own connection, not taken        a chunk                              held: Socket.Receive
//	a reply to DISCARD or CLIENT GETNAME, withheld maxHeld                              held: relaying.hold
//	RESET with its arguments                       maxHeld                              held: reset
//	commands that wait in a lane, and its slots    4 x lane.MaxBytes, lane.MaxCommands  held by the lane beyond the next: countLocked
//	buffers and slots of a lane                    512 KiB (kept in package lane)       kept by the lane: countLocked
//	names that a session has set                   3 x maxRemembered                    in sessionCost
//	scripts that are remembered                    command.maxScripts sums, for all     not counted: 200 KiB at most
//	lines of the audit log                         its queue, for all                   not counted: bounded by its length
//
// Socket and CountTLS are those of package netio. Free buffers in a sync.Pool are not counted: the collector frees them
// before the heap passes GOMEMLIMIT.
//
// The fixed cost of a session does not include the room that is kept for long records: if many sessions keep some, fewer than
// MAX_CONNECTIONS fit, and the reliever closes idle sessions once no session or lane holds anything.
//
// When an identity holds more than half of its share, or everybody together more than three quarters of BufferLimit, a
// session that holds more than a page reads no more commands until it holds less; any other goes on. The less is left of the
// share or of the limit, the fewer bytes of replies of lanes are kept for a client (netio.Account.Budget). When the share or
// the limit is exceeded, the reliever ends sessions and lanes at once (relief.go).

const (
	// HandshakeMemory is the most that a socket costs before its handshake is finished: at most 32 KiB of messages are read,
	// into a buffer that doubles.
	HandshakeMemory = 64 << 10
	// SessionMemory is the least that a session costs, with the two connections to the backend for which
	// BACKEND_MAX_CONNECTIONS has room.
	SessionMemory = sessionCost + 2*backend.ConnectionCost

	// sessionCost is what cmd/dragonbench measures for a session: 22 KiB. At rest it takes 15 KiB, but all may wake at once.
	sessionCost = 22 << 10

	// slotCost is counted for a slot, noteCost for a note with a name of maxRemembered bytes.
	slotCost = 80
	noteCost = 768

	// fewSlots is the number of slots, and of tallies, that sessionCost includes.
	fewSlots = 64

	// tallyCost is the size of a tally in bytes.
	tallyCost = 16
)

// slotsCost returns what a ring or a batch with room for n slots costs. One of up to fewSlots costs nothing more: sessionCost
// includes it.
func slotsCost(n int) int64 {
	if n <= fewSlots {
		return 0
	}
	return int64(n) * slotCost
}

// called reports whether the session's reader has something else to do than to read from the client: to send a command
// again.
func (s *session) called() bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.out != nil && q.out.resend != nil
}

// quotaKey returns the quota key of the session's client: its identity, or its network if it has shown no certificate.
func (s *session) quotaKey() netio.QuotaKey {
	if p := s.peer.Load(); p != nil && p.Identity != [32]byte{} {
		return netio.QuotaKey{Identity: p.Identity}
	}
	return netio.QuotaKey{Network: originOf(s.client.sock.RemoteAddr())}
}

// closeAccount closes the account of a session or lane that has ended. An account that still holds something is a fault of
// ours, and is logged.
func (s *Server) closeAccount(a *netio.Account) {
	if n := a.Close(); n != 0 {
		s.log.Error().Int64("bytes", n).Msg(neverGivenBack)
	}
}

const neverGivenBack = "bytes were counted and never given back"

// closeAccount gives back what the session still holds, and closes its account. The session's reader calls it at the end.
func (s *session) closeAccount() {
	c := &s.client
	c.r, c.w = 0, 0
	s.setBuf(nil, nil)
	c.tallied = nil
	s.dropBatch()
	s.dropHeld()
	s.queue.drop()
	s.server.closeAccount(s.account())
	s.server.buffers.Fix(-sessionCost)
}

// dropHeld forgets the reply that the pump withholds, if there is one.
func (s *session) dropHeld() {
	p := &s.pump
	s.account().Hold(-int64(len(p.held)))
	p.held = nil
}

// pause waits while memory is scarce and the session holds some of it. It does not wait if the reader has part of a command
// or of a TLS record: only reading the rest gives that memory back.
func (s *session) pause() {
	c := &s.client
	if s.flush() != nil || c.r < c.w || c.streamed != nil || len(c.sock.Unread()) > 0 || c.sock.InRecord() {
		return
	}
	c.r, c.w = 0, 0
	s.setBuf(nil, nil)
	s.holds.Store(holdsNothing)
	s.waitForMemory()
}

// waitForMemory pauses the session's reader while memory is scarce (netio.Account.Pressed) and nothing else wants it
// (called). It checks less and less often; at the longest interval it also checks whether the client is still there, since
// no element may be popped for a client that is gone.
func (s *session) waitForMemory() {
	for pause := memoryPause; s.account().Pressed() && !s.called(); pause = min(2*pause, maxMemoryPause) {
		if !s.server.napUnless(s.done, pause) {
			return
		}
		if pause == maxMemoryPause {
			if _, ended := s.lookAtClient(); ended {
				return
			}
		}
	}
}
