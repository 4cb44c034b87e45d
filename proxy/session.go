package proxy

import (
	"crypto/tls"
	"errors"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/backend"
	"dragontls/proxy/clock"
	"dragontls/proxy/command"
	"dragontls/proxy/lane"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

const (
	// maxHeld is the size up to which a command is held and judged as a whole. A bigger one is streamed.
	maxHeld = netio.ChunkSize
	// maxInline is Redis' limit for an inline command (PROTO_INLINE_MAX_SIZE) minus one, so that a line and its LF fit
	// into the biggest buffer.
	maxInline = netio.ChunkSize - 1
)

// session is one client connection. Its reader goroutine (client.go) reads the client and submits commands to the backend.
// Replies come from the readers of lanes and from its pump goroutine (pump.go), which reads its own connection. The queue
// keeps the order of replies and decides who may write to the client.
type session struct {
	server *Server
	stripe *stripe
	id     uint64 // see SessionInfo

	client clientSide
	pump   pump
	queue  replyOrder

	peer atomic.Pointer[Peer] // nil until the client's certificate has been judged
	ends atomic.Int64         // when the session ends because its certificate expires, in unix nanoseconds

	lastActive clock.Atomic // when the client last sent something or was last answered, see Server.now
	holds      atomic.Int32 // what the reader holds, see holdsNothing
	rests      rester       // whether the reader has a goroutine

	sharing

	endOnce sync.Once
	reason  closeReason
	done    chan struct{} // closed by end

	begun    clock.Instant // see Server.now
	bytesOut uint64        // RESP bytes passed to writes to the client; the holder of the turn counts them
	identity *identity     // the identity in whose limit the session is counted, or nil. Guarded by Server.mu
	leaving  *identity     // the identity among whose leaving sessions it is counted, or nil. Guarded by Server.mu
}

// forGood, as the value of sharing.ownUntil, is a time that never comes.
const forGood = clock.Instant(math.MaxInt64)

const (
	holdsNothing  int32 = iota
	holdsPart           // the beginning of a command
	holdsCommands       // maybe commands whose slots are not in the queue yet
)

// sharing decides over which connection the session reaches the backend. Fields that are not atomic and name no lock belong
// to the session's reader.
type sharing struct {
	at          route
	seat        lane.Seat                    // what lanes keep of it
	tie         atomic.Int32                 // sharesLanes, ownForLife or ownFromBirth
	proven      atomic.Bool                  // the backend is known to serve it
	proofOnly   atomic.Bool                  // no command has needed its own connection, which is open only to prove the session
	goesOver    atomic.Int32                 // at.on, for goroutines other than the reader
	gen         atomic.Uint64                // counts the changes of what decides which lanes it may use
	ownUntil    clock.Atomic                 // until then it uses its own connection, see Server.now; may be forGood
	followed    time.Duration                // how long lanes have waited for its client in all; guarded by queue.mu
	stickies    atomic.Uint64                // commands that opened a transaction, watched keys or were ASKING; the reader counts them
	stickyEnded atomic.Uint64                // so many of stickies, the first ones, are known to have ended
	state       backend.State                // what the backend has confirmed; guarded by pump.mu
	database    atomic.Int32                 // databaseNoted or databaseUnknown
	life        atomic.Pointer[backend.Life] // see believeScripts; nil: its client believes in no script

	credential     [32]byte // digest of the user and password that were configured when the session began
	middle         *ownConn // has received the beginning of a command whose rest is still to come; nil if none has
	asking         bool     // ASKING was passed on, and no command after it
	wrongPasswords uint8    // so many has the client sent
	asked          uint64   // what stickies became when ASKING was last passed on
}

// clientSide belongs to the session's reader, except sock and conn, which other goroutines use too.
type clientSide struct {
	sock *netio.Socket
	conn *tls.Conn
	cmds resp.Commands

	input
	failed   error            // of a read of the client
	streamed *command.Command // the big command in the middle of which the reader is, or nil

	batch
	next     nextCommand
	settings *settings        // as they were when the client last sent something, see follow
	rules    *command.Rules   // by which the last command was judged; nil allows every command
	commands atomic.Uint64    // commands passed on or answered here; only the reader adds to it, once for each batch
	bytesIn  uint64           // RESP bytes read
	last     *command.Command // the kind of command that lastN counts
	lastN    uint64           // commands of that kind that are not yet in tallied

	eof        bool
	skipping   bool // streamed is refused, or its connection is lost: the rest of it is read and dropped
	tx         transaction
	holding    bool  // the reader is in hold, and the command for which it waits may not be in the queue yet
	ending     bool  // the last reply is queued; whatever else the client sends is dropped
	recovering bool  // replies were lost, see recover
	flushErr   error // after it the reader submits nothing
}

func newSession(s *Server, sock *netio.Socket, conn *tls.Conn) *session {
	n := &session{server: s, id: s.lastSession.Add(1), done: make(chan struct{})}
	n.stripe = &s.stripes[n.id%stripes]
	n.client.sock, n.client.conn = sock, conn
	n.client.settings = s.settings.Load()
	n.client.cmds.Limits = resp.Limits{MaxBulk: n.client.settings.maxBulk, MaxArgs: n.client.settings.maxArgs, MaxInline: maxInline}
	n.client.buf = n.client.small[:]
	n.pump.done, n.pump.want = make(chan struct{}), make(chan struct{})
	n.queue.init(sock.Account())
	n.queue.out = &outbox{account: sock.Account(), most: n.client.settings.sessionBuffer}
	n.seat.Rider, n.client.out.Account = n, sock.Account()
	n.ends.Store(math.MaxInt64)
	n.begun = s.now()
	n.lastActive.Store(n.begun)
	sock.BeforeWait = n.beforeWait
	sock.EnableBacklog(n.writeFailed)
	return n
}

// account returns the account of what the session makes the proxy hold. The client's socket counts on it too.
func (s *session) account() *netio.Account { return s.queue.account }

// end ends the session. Only the first call has an effect, and its reason counts. Any goroutine may call it, unless it holds
// Server.mu or a lock of the session. The session's reader then says goodbye to the client and closes the socket.
func (s *session) end(reason closeReason) {
	s.endOnce.Do(func() {
		s.reason = reason
		close(s.done)
		s.queue.close()
		s.interrupt()
		s.endOwn()
		s.server.leave(s)
	})
}

// kill ends the session without saying goodbye, and resets the client's connection. It is for a client that does not read or
// is gone, and for a session that must end at once.
func (s *session) kill(reason closeReason) {
	s.end(reason)
	s.client.sock.Abort()
}

func (s *session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// idle reports whether the session may be closed now, between two commands: nothing is owed or held, and no reply is
// expected that is not counted, such as a message to a subscriber.
func (s *session) idle() bool { return !s.uncounting() && s.quiet() }

// quiet reports whether nothing is owed or held. Replies that are not counted may still come.
func (s *session) quiet() bool { return s.holds.Load() == holdsNothing && s.settledNow() }

// owing reports whether the session has taken a command whose reply is not written yet. Half a command does not count.
func (s *session) owing() bool {
	return s.holds.Load() == holdsCommands || !s.settledNow()
}

func (s *session) settledNow() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.owed == 0 && s.queue.slots.Len() == 0 && !s.queue.turn
}

// waiting reports whether the session only waits for other clients: its replies are not counted, as after SUBSCRIBE, or one
// of its commands blocks.
func (s *session) waiting() bool {
	return s.uncounting() || s.blocked()
}

// blocked reports whether a command in flight may wait for other clients, as BLPOP does.
func (s *session) blocked() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.blocked > 0
}

// finish closes the client's connection and gives back what the session holds. The session's reader calls it last.
func (s *session) finish() {
	s.end(closeInternalError) // does nothing if the session has ended for another reason
	s.abandonLane()
	<-s.pump.done
	if !s.queue.hasTurn() { // otherwise somebody is writing, and the Close below breaks that write
		if s.isCutShort() {
			s.dropRest()
		}
		s.client.conn.CloseWrite() // close_notify
		s.client.sock.FlushWithin(s.server.c.closeTimeout)
	}
	s.client.conn.Close()
	s.queue.awaitWriters(s.account())
	_ = s.client.sock.Flush() // after the writers, which may have left bytes to the socket's goroutine just before the end
	s.leaveSet()
	s.client.sock.Release()
	s.closeAccount()
	s.event(s.server.log.Debug()).Str("reason", string(s.reason)).Msg("session ended")
	s.auditEnded()
	s.server.remove(s)
}

// panicked ends the session after a panic v in one of its goroutines. No other session is affected.
func (s *session) panicked(v any) {
	s.server.panics.Add(1)
	s.event(s.server.log.Error()).Interface("panic", v).Bytes("stack", debug.Stack()).Msg("panic in a session")
	s.kill(closeInternalError)
}

// event adds the client's address to a log line. A logger of its own would cost each session half a KiB, even when idle.
func (s *session) event(e *zerolog.Event) *zerolog.Event {
	return e.Stringer("remote", s.client.sock.RemoteAddr())
}

// describe adds to a log line whose session this is.
func (s *session) describe(e *zerolog.Event) {
	s.event(e)
	if p := s.peer.Load(); p != nil && p.Identity != [32]byte{} {
		e.Str("client", p.Name).Str("serial", p.Serial).Hex("identity", p.Identity[:])
	}
}

var errEnded = errors.New("session ended")

// batch is what the session's reader has framed and not submitted yet. A batch is submitted as a whole, to one connection.
type batch struct {
	out       lane.Batch // canonical bytes for the backend, gathered until the reader would wait
	pend      []slot     // the slots of these commands, and of local replies among them
	tallied   []tally
	counted   int64     // bytes that countBatch has counted on the account
	route     routeKind // the strongest that a command of the batch needs
	stateful  bool      // if it were answered by local errors, the session's state would be unknown
	scripting bool      // it contains a command after which the client may believe that the backend knows a script
	hasTx     bool      // it contains a whole transaction
	changes   bool      // a command of it may do more than read
	frames    int       // whole commands in out
	whole     int       // 1 + the index in pend of a MULTI whose EXEC may still come in this batch; 0 if there is none
}

// nextCommand is what classify has found out about the command that queueFrame adds next.
type nextCommand struct {
	note *note
	part txPart
}
