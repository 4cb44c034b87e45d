package proxy

import (
	"crypto/tls"
	"errors"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"dragontls/proxy/command"
	"dragontls/proxy/netio"
	"dragontls/proxy/resp"
)

const (
	// maxHeld: a command up to this size is held and looked at as a whole; a bigger one is streamed.
	maxHeld = netio.ChunkSize
	// maxInline is Redis' limit of an inline command (PROTO_INLINE_MAX_SIZE) less one, so that a line and its LF fit
	// into the biggest buffer.
	maxInline = netio.ChunkSize - 1
)

// session is one client connection. Its reader goroutine (client.go) owns the client's bytes and writes to the
// backend; its pump goroutine (pump.go) reads the backend; the queue between them says who writes to the client.
type session struct {
	server *Server
	stripe *stripe

	client clientSide
	pump   pump
	queue  replyOrder

	peer atomic.Pointer[Peer] // nil before it is judged
	ends atomic.Int64         // unix nanoseconds, when its certificate's end ends it

	lastActive atomic.Int64 // monotonic nanoseconds, see Server.now
	holds      atomic.Int32 // what the reader holds, see holdsNothing
	rests      rester       // says whether its reader has a goroutine

	sharing

	endOnce sync.Once
	reason  closeReason
	done    chan struct{} // closed by end

	begun    int64     // see Server.now
	bytesOut uint64    // RESP bytes given to writes to the client; whoever has the turn counts
	identity *identity // whose place it holds; nil: none. Guarded by Server.mu
}

// forGood is a time that never comes, see sharing.ownUntil.
const forGood = math.MaxInt64

const (
	holdsNothing  int32 = iota
	holdsPart           // the beginning of a command
	holdsCommands       // commands that the queue does not know of yet
)

// sharing decides about the session's way to the backend. Fields without a word belong to its reader.
type sharing struct {
	at          route
	onLane      onLane        // what is in flight on its lane
	waiter      waiter        // for room on its lane; guarded by that lane's mu
	tie         atomic.Int32  // sharesLanes, ownForLife or ownFromBirth
	proven      atomic.Bool   // the backend serves it
	proofOnly   atomic.Bool   // its own connection has done nothing but show that
	gen         atomic.Uint64 // counts the changes of what decides about its lanes
	slowAt      atomic.Int64  // see noteSlow, and the next
	slowUntil   atomic.Int64
	ownUntil    atomic.Int64  // see Server.now: until then, or forGood, it uses its own connection
	followed    int64         // how long its lane has waited for its client, in all; guarded by queue.mu
	stickies    atomic.Uint64 // commands that opened a transaction or watched keys; the reader counts
	stickyEnded atomic.Uint64 // all up to this one are known to have ended
	state       connState     // that the backend has confirmed; guarded by pump.mu

	resendFrame [96]byte     // the command in flight where it is one that may be asked again, see resend; guarded by its lane's mu
	resendLen   int          // 0: it is none
	credential  [32]byte     // digest of the user and password that were configured when the session began
	middle      *backendConn // has the beginning of a command whose rest is still to come; nil: none does
	asking      bool         // ASKING was passed on, and no command after it
	asked       uint64       // stickies when ASKING was last passed on
}

// clientSide belongs to the reader goroutine, but for sock and conn.
type clientSide struct {
	sock *netio.Socket
	conn *tls.Conn
	cmds resp.Commands

	input
	eof      bool
	skipping bool // streamed is refused: read and dropped
	failed   error
	streamed *command.Command // the command in the middle of which the reader is; nil: none

	batch
	next     nextCommand
	rules    *command.Rules // by which the last command was judged; nil: all commands
	commands uint64         // taken: passed on or refused
	bytesIn  uint64         // RESP bytes read
	last     *command.Command
	lastN    uint64 // commands of that kind not yet counted

	tx         transaction
	holding    bool // in hold: what waits is not queued yet
	ending     bool // our last word is queued: the rest is dropped
	recovering bool // replies were lost, see recover
	flushErr   error
}

func newSession(s *Server, sock *netio.Socket, conn *tls.Conn) *session {
	n := &session{server: s, done: make(chan struct{})}
	n.stripe = &s.stripes[s.nextStripe.Add(1)%stripes]
	n.client.sock, n.client.conn = sock, conn
	n.client.cmds.Limits = resp.Limits{MaxBulk: s.c.MaxBulk, MaxArgs: s.c.MaxArgs, MaxInline: maxInline}
	n.client.buf = n.client.small[:]
	n.pump.done, n.pump.want = make(chan struct{}), make(chan struct{})
	n.queue.init(sock.Account())
	n.queue.out = &outbox{account: sock.Account(), most: s.c.SessionBuffer}
	n.ends.Store(math.MaxInt64)
	n.begun = s.now()
	n.lastActive.Store(n.begun)
	sock.BeforeWait = n.beforeWait
	sock.EnableBacklog(func(err error) { _ = n.writeFailed(err) })
	return n
}

// account counts what the session makes the proxy hold. It is that of its client's socket too.
func (s *session) account() *netio.Account { return s.queue.account }

// end ends the session for the first reason given; any goroutine may call it that holds neither Server.mu nor a lock of
// the session. The reader says goodbye and closes.
func (s *session) end(reason closeReason) {
	s.endOnce.Do(func() {
		s.reason = reason
		close(s.done)
		s.queue.close()
		s.interrupt()
		s.pump.mu.Lock()
		up := s.pump.up
		s.pump.mu.Unlock()
		if up != nil {
			up.close()
		}
		s.server.leave(s)
	})
}

// kill ends the session without goodbye: the client does not read, or is gone.
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

// idle says that the session may be closed between two commands: nothing is owed, held or expected.
func (s *session) idle() bool {
	return s.holds.Load() == holdsNothing && !s.uncounting() && s.settledNow()
}

// owing says that a command was taken whose reply is not out. Half a command is owed nothing.
func (s *session) owing() bool {
	return s.holds.Load() == holdsCommands || !s.settledNow()
}

func (s *session) settledNow() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.owed == 0 && s.queue.slots.len() == 0 && !s.queue.turn
}

// waiting says that the session only waits for others: it is subscribed, or a command of it blocks.
func (s *session) waiting() bool {
	return s.uncounting() || s.blocked()
}

// blocked reports whether a command of the session waits for other clients.
func (s *session) blocked() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.blocked > 0
}

// finish closes what the reader owns. The reader calls it last.
func (s *session) finish() {
	s.end(closeInternalError) // no-op where a reason is known
	<-s.pump.done
	if !s.queue.hasTurn() { // else closing breaks the write
		s.client.conn.CloseWrite() // close_notify
		s.client.sock.FlushWithin(s.server.c.closeTimeout)
	}
	s.client.conn.Close()
	s.queue.awaitWriters(s.account())
	_ = s.client.sock.Flush() // last: a writer may have left bytes to the socket's goroutine just before the end
	s.leaveSet()
	s.client.sock.Release()
	s.dropBuffers()
	s.closeAccount()
	s.event(s.server.log.Debug()).Str("reason", string(s.reason)).Msg("session ended")
	s.auditEnded()
	s.server.remove(s)
}

// panicked ends the session on a panic of one of its goroutines; nobody else notices.
func (s *session) panicked(v any) {
	s.server.panics.Add(1)
	s.event(s.server.log.Error()).Interface("panic", v).Bytes("stack", debug.Stack()).Msg("panic in a session")
	s.kill(closeInternalError)
}

// event says whose log line it is. A logger kept by each session would cost half a KiB of an idle one.
func (s *session) event(e *zerolog.Event) *zerolog.Event {
	return e.Stringer("remote", s.client.sock.RemoteAddr())
}

var errEnded = errors.New("session ended")
