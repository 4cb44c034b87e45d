package proxy

import (
	"dragontls/proxy/backend"
	"dragontls/proxy/netio"
)

// What a peer can make the proxy hold, where it is counted, and what bounds it. "held" counts towards the share of the
// client's identity and towards Config.BufferLimit, "kept" and "fixed" towards BufferLimit only.
//
//	what                                           bound for one                        counted
//	a socket whose handshake is not finished       HandshakeMemory                      set aside, see Config.BufferLimit
//	a session: structs, stacks, TLS state          sessionCost                          fixed, startSession
//	a connection to the backend: the same          backend.ConnectionCost               fixed, Backend.Dial
//	room in crypto/tls for the longest record      2 x 16 KiB                           kept, or held while the record is incomplete: CountTLS
//	half a handshake message after the handshake   2 x 256 KiB                          held: CountTLS
//	what the kernel gave and crypto/tls not took   a page                               held: Socket.Read
//	half a command, or commands not yet judged     a chunk                              held: clientSide.buf
//	canonical commands not yet written             a chunk, 4 more for a long inline    held: clientSide.out, countBatch
//	their slots and notes                          256 slots of ours, one a command     held: countBatch
//	slots and notes of what is owed                maxSlots and one batch               held: replyOrder.pushLocked
//	replies of lanes that the client takes not     SESSION_BUFFER and a chunk           held: outbox
//	a write that the client takes not              a record, and a page of backlog      held: a stuck Socket
//	a reply that its client takes not              a chunk                              held: Socket.Receive
//	the reply to a DISCARD that is withheld        maxHeld                              held: withhold
//	RESET with its arguments                       maxHeld                              held: reset
//	commands that wait in a lane, and its slots    4 x laneBytes, laneCommands          held by the lane beyond laneKept: countLocked
//	buffers and slots of a lane                    laneKept                             kept by the lane: countLocked
//	names that a session has set                   3 x maxRemembered                    in sessionCost
//	scripts that are remembered                    command.maxScripts sums, for all     not: 200 KiB at most
//	lines of the audit log                         its queue, for all                   not: bounded by its length
//
// Socket, with CountTLS, is that of package netio. What is free in a sync.Pool is held by nobody: the collector takes it before
// the heap passes GOMEMLIMIT.
//
// The fixed cost of a session leaves out the room that is kept for long records: where many sessions keep some, fewer than
// MAX_CONNECTIONS fit, and the reliever closes idle sessions once no session or lane holds anything.
//
// What happens: above half of its identity's share, or three quarters of BufferLimit, a session that holds something takes
// in no more commands until it has given back; one that holds nothing goes on. The closer the share is to its end, the
// fewer replies of lanes are kept for a client (netio.Account.Budget). Who passes the share or the limit is relieved at once
// by the reliever (relief.go).

const (
	// HandshakeMemory is what a socket costs at most before its handshake is finished: 32 KiB of messages are read at most,
	// in a buffer that doubles.
	HandshakeMemory = 64 << 10
	// SessionMemory is what a session costs at least, with the two connections to the backend for which
	// BACKEND_MAX_CONNECTIONS has room.
	SessionMemory = sessionCost + 2*backend.ConnectionCost

	// sessionCost: cmd/dragonbench measures 22 KiB for a session. At rest it takes 15, but all may awake at once.
	sessionCost = 22 << 10

	// slotCost of a slot, noteCost of a note with a name of maxRemembered bytes, laneSlotCost of a laneSlot.
	slotCost     = 80
	noteCost     = 768
	laneSlotCost = 64

	// laneKept: a lane keeps its buffers and slots for what comes, up to so much. Only what is beyond shows that commands wait.
	laneKept = 512 << 10

	// fewSlots is the number of slots, and of tallies, that sessionCost includes.
	fewSlots = 64

	// tallyCost is the size of a tally in bytes.
	tallyCost = 16
)

// slotsCost is what a ring or a batch with room for n slots costs beyond those that every session has.
func slotsCost(n int) int64 {
	if n <= fewSlots {
		return 0
	}
	return int64(n) * slotCost
}

// countBatch counts what the batch holds beyond its chunk. The reader calls it before it may wait with a batch, and
// when the batch or a part of it is gone. hot
func (s *session) countBatch() {
	c := &s.client
	n := slotsCost(cap(c.pend))
	for i := range c.pend {
		if c.pend[i].note != nil {
			n += noteCost
		}
	}
	if k := cap(c.tallied); k > fewSlots {
		n += int64(k) * tallyCost
	}
	if extra := cap(c.out) - netio.ChunkSize; extra > 0 {
		n += int64(extra)
	}
	if n != c.counted {
		s.account().Hold(n - c.counted)
		c.counted = n
	}
}

// freeOut gives back the bytes of the batch.
func (s *session) freeOut() {
	c := &s.client
	if c.outChunk != nil {
		s.account().FreeChunk(c.outChunk)
		c.out, c.outChunk = nil, nil
		s.countBatch()
	}
}

// called reports whether the reader is wanted for something else than what the client sends next.
func (s *session) called() bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost || q.out != nil && q.out.resend != nil
}

// quotaKey is that of the session's client.
func (s *session) quotaKey() netio.QuotaKey {
	if p := s.peer.Load(); p != nil && p.Identity != [32]byte{} {
		return netio.QuotaKey{Identity: p.Identity}
	}
	return netio.QuotaKey{Network: originOf(s.client.sock.RemoteAddr())}
}

// closeAccount closes the account of a session or lane that has ended. It logs what the account still holds: a fault of ours.
func (s *Server) closeAccount(a *netio.Account) {
	if n := a.Close(); n != 0 {
		s.log.Error().Int64("bytes", n).Msg(neverGivenBack)
	}
}

const neverGivenBack = "bytes were counted and never given back"

// closeAccount gives back what the session still holds besides buffers. The reader calls it last.
func (s *session) closeAccount() {
	c := &s.client
	c.pend, c.out = nil, nil
	s.countBatch()
	s.dropHeld()
	s.queue.drop()
	s.server.closeAccount(s.account())
	s.server.buffers.Fix(-sessionCost)
}

// dropHeld forgets the reply that is withheld, if one is.
func (s *session) dropHeld() {
	p := &s.pump
	s.account().Hold(-int64(len(p.held)))
	p.held = nil
}

// waitForMemory pauses the reader of a session that holds something while memory is scarce, see netio.Account.Pressed. It looks
// less and less often, and then at the client too: nothing must be popped for one that is gone.
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
