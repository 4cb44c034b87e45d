package proxy

import (
	"crypto/tls"
	"encoding/hex"
	"net"
	"time"

	"github.com/rs/zerolog"

	"dragontls/proxy/clock"
	"dragontls/proxy/command"
	"dragontls/proxy/spool"
)

// AuditLevel decides what the audit log holds.
type AuditLevel uint8

const (
	AuditOff         AuditLevel = iota
	AuditConnections            // a line for the beginning of each session, and one for its end
	AuditCommands               // also a line for each command, with its name: never keys, values or other arguments
)

// Audit configures the audit log. Traffic never waits for it: a line that does not fit into the queue is dropped and counted
// (Stats.AuditDropped), and a later line tells how many were.
type Audit struct {
	Level AuditLevel
	Log   zerolog.Logger // all lines are written, whatever its level
	Queue int            // lines that may wait to be written; 4096
}

// auditFlushTimeout is how long Close waits until the queued lines are written.
const auditFlushTimeout = time.Second

// auditEvent is what one line will say.
type auditEvent struct {
	kind     string        // accepted, ended, command
	at       clock.Instant // see Server.now
	peer     *Peer         // nil if the client was never judged
	remote   net.Addr
	version  uint16 // of TLS; not for commands
	resumed  bool
	fate     commandFate
	command  string // its name in the table
	reason   closeReason
	commands uint64
	bytesIn  uint64
	bytesOut uint64
	duration time.Duration
}

// commandFate says what became of a command.
type commandFate uint8

const (
	commandPassed   commandFate = iota // it was passed on
	commandAnswered                    // dragontls has answered it as the backend would
	commandRefused                     // dragontls has refused it
)

// auditor writes the audit log in a goroutine of its own. Whoever puts an event asks settings.audit first.
type auditor struct {
	log     zerolog.Logger
	started time.Time
	queue   *spool.Queue[auditEvent]
}

func newAuditor(a Audit, started time.Time) *auditor {
	w := &auditor{log: a.Log.Level(zerolog.TraceLevel), started: started}
	w.queue = spool.New(spool.Options[auditEvent]{Size: a.Queue, Write: w.write, Gap: w.tellDropped})
	return w
}

// start starts the goroutine that writes. Serve calls it before the first session.
func (a *auditor) start() { a.queue.Start() }

// close writes what is queued, for at most auditFlushTimeout. Server.Close calls it once, after the last put.
func (a *auditor) close() { a.queue.Close(auditFlushTimeout) }

// put queues an event, or drops it if the queue is full. It never waits. hot
func (a *auditor) put(e auditEvent) { a.queue.Put(e) }

func (a *auditor) droppedSoFar() uint64 { return a.queue.Dropped() }

// tellDropped writes the line that tells of n dropped events.
func (a *auditor) tellDropped(n uint64) bool {
	a.log.Warn().Str("audit", "dropped").Time(zerolog.TimestampFieldName, time.Now()).Uint64("events", n).Msg("audit events were dropped")
	return true
}

func (a *auditor) write(e auditEvent) {
	l := a.log.Info().Str("audit", e.kind).Time(zerolog.TimestampFieldName, a.started.Add(e.at.Sub(0))).Stringer("remote", e.remote)
	if p := e.peer; p != nil {
		if p.Identity != [32]byte{} {
			l.Str("identity", hex.EncodeToString(p.Identity[:])).Str("client", p.Name).Str("serial", p.Serial)
		}
		if p.User != nil {
			l.Str("user", p.User.Name)
		}
	}
	if e.command != "" {
		l.Str("command", e.command).Bool("refused", e.fate == commandRefused).Bool("local", e.fate != commandPassed).Msg("command")
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
	if s.server.settings.Load().audit < AuditConnections || s.ended() {
		return
	}
	s.server.audit.put(auditEvent{
		kind: "accepted", at: s.begun, peer: s.peer.Load(), remote: s.client.sock.RemoteAddr(),
		version: st.Version, resumed: st.DidResume,
	})
}

// auditEnded logs the end of the session. The session's reader calls it at its end, when nothing of the session changes any
// more.
func (s *session) auditEnded() {
	if s.server.settings.Load().audit < AuditConnections {
		return
	}
	st, now := s.client.conn.ConnectionState(), s.server.now()
	s.server.audit.put(auditEvent{
		kind: "ended", at: now, peer: s.peer.Load(), remote: s.client.sock.RemoteAddr(),
		version: st.Version, resumed: st.DidResume, reason: s.reason,
		commands: s.client.commands.Load(), bytesIn: s.client.bytesIn, bytesOut: s.bytesOut, duration: now.Sub(s.begun),
	})
}

// auditCommand logs what became of a command. The caller must have checked settings.audit. hot
func (s *session) auditCommand(cmd *command.Command, fate commandFate) {
	s.server.audit.put(auditEvent{
		kind: "command", at: s.lastActive.Load(), peer: s.peer.Load(), remote: s.client.sock.RemoteAddr(),
		command: cmd.Name, fate: fate,
	})
}
