package proxy

import (
	"crypto/tls"
	"encoding/hex"
	"net"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/command"
	"dragontls/proxy/spool"
)

// AuditLevel says what the audit log holds.
type AuditLevel uint8

const (
	AuditOff         AuditLevel = iota
	AuditConnections            // a line for each session that begins, and one for its end
	AuditCommands               // and one for each command, with its name: never keys, values or other arguments
)

// Audit is where the audit log goes. Traffic never waits for it: what does not fit into the queue is dropped, counted
// (Stats.AuditDropped) and told in a line of its own.
type Audit struct {
	Level AuditLevel
	Log   zerolog.Logger // its level does not matter
	Queue int            // lines that wait to be written; 4096
}

// auditFlushTimeout: how long Close waits for what is queued.
const auditFlushTimeout = time.Second

// auditEvent is one line to be.
type auditEvent struct {
	kind     string // accepted, ended, command
	at       int64  // see Server.now
	peer     *Peer  // nil: no certificate, or it was never judged
	remote   net.Addr
	version  uint16 // of TLS, but for commands
	resumed  bool
	refused  bool   // a command
	command  string // of the table
	reason   closeReason
	commands uint64
	bytesIn  uint64
	bytesOut uint64
	duration time.Duration
}

// auditor writes the audit log in a goroutine of its own. nil: there is none.
type auditor struct {
	log     zerolog.Logger
	started time.Time
	queue   *spool.Queue[auditEvent]
}

func newAuditor(a Audit, started time.Time) *auditor {
	if a.Level == AuditOff {
		return nil
	}
	w := &auditor{log: a.Log, started: started}
	w.queue = spool.New(spool.Options[auditEvent]{Size: a.Queue, Write: w.write, Gap: w.tellDropped})
	return w
}

// start begins to write; the Server calls it before its first session.
func (a *auditor) start() {
	if a != nil {
		a.queue.Start()
	}
}

// close writes what is queued, for at most auditFlushTimeout. Called once, when nobody puts any more.
func (a *auditor) close() {
	if a != nil {
		a.queue.Close(auditFlushTimeout)
	}
}

// put never waits. hot
func (a *auditor) put(e auditEvent) { a.queue.Put(e) }

func (a *auditor) droppedSoFar() uint64 {
	if a == nil {
		return 0
	}
	return a.queue.Dropped()
}

func (a *auditor) tellDropped(n uint64) bool {
	a.log.Log().Str("audit", "dropped").Uint64("events", n).Msg("audit events were dropped")
	return true
}

func (a *auditor) write(e auditEvent) {
	l := a.log.Log().Str("audit", e.kind).Time(zerolog.TimestampFieldName, a.started.Add(time.Duration(e.at))).Stringer("remote", e.remote)
	if p := e.peer; p != nil {
		if p.Identity != [32]byte{} {
			l.Str("identity", hex.EncodeToString(p.Identity[:])).Str("client", p.Name).Str("serial", p.Serial)
		}
		if p.User != nil {
			l.Str("user", p.User.Name)
		}
	}
	if e.command != "" {
		l.Str("command", e.command).Bool("refused", e.refused).Msg("command")
		return
	}
	l.Str("tls_version", versionName(e.version)).Bool("resumed", e.resumed)
	if e.reason == "" {
		l.Msg("session accepted")
		return
	}
	l.Str("reason", string(e.reason)).Uint64("commands", e.commands).Uint64("bytes_in", e.bytesIn).Uint64("bytes_out", e.bytesOut)
	l.Float64("duration_seconds", e.duration.Seconds()).Msg("session ended")
}

func (s *session) auditAccepted(st *tls.ConnectionState) {
	a := s.server.audit
	if a == nil || s.ended() {
		return
	}
	a.put(auditEvent{
		kind: "accepted", at: s.begun, peer: s.peer.Load(), remote: s.client.sock.RemoteAddr(),
		version: st.Version, resumed: st.DidResume,
	})
}

// auditEnded is for the reader, which is the last to touch the session.
func (s *session) auditEnded() {
	a := s.server.audit
	if a == nil {
		return
	}
	st, now := s.client.conn.ConnectionState(), s.server.now()
	a.put(auditEvent{
		kind: "ended", at: now, peer: s.peer.Load(), remote: s.client.sock.RemoteAddr(),
		version: st.Version, resumed: st.DidResume, reason: s.reason,
		commands: s.client.commands, bytesIn: s.client.bytesIn, bytesOut: s.bytesOut, duration: time.Duration(now - s.begun),
	})
}

// auditCommand notes that a command was taken; where Server.auditsCommands says so. hot
func (s *session) auditCommand(cmd *command.Command, refused bool) {
	s.server.audit.put(auditEvent{
		kind: "command", at: s.lastActive.Load(), peer: s.peer.Load(), remote: s.client.sock.RemoteAddr(),
		command: cmd.Name, refused: refused,
	})
}
