package main

import (
	"strconv"
	"strings"
	"time"

	"dragontls/certs"
	"dragontls/proxy"
	"dragontls/proxy/admin"
)

// collect turns what the proxy and the certificates count into the metrics of the admin listener.
func (s *service) collect(emit func(admin.Metric)) {
	m := metrics{emit}
	st := s.server.Stats()
	m.gauge("connections", "Client connections by state.", float64(st.Sessions), label("state", "open"))
	m.gauge("connections", "Client connections by state.", float64(st.Handshaking), label("state", "handshaking"))
	m.counter("handshakes_waited_total", "Sockets that waited to be accepted because all places for handshakes were taken.", st.HandshakesWaited)
	for reason, n := range st.SessionsClosed {
		m.counter("sessions_closed_total", "Sessions that ended, by the first cause.", n, label("reason", reason))
	}
	s.collectHandshakes(m, st)
	for path, commands := range map[string]map[string]uint64{"own": st.Commands, "lane": st.CommandsLane, "local": st.CommandsLocal} {
		for name, n := range commands {
			m.counter("commands_total", "Commands of clients by what they went over: a connection of one session, a lane or none (answered here).",
				n, label("command", name), label("path", path))
		}
	}
	for by, n := range st.Denied {
		m.counter("commands_denied_total", "Commands of clients that were refused here, by what refused them.", n, label("by", by))
	}
	for name, n := range st.RulesWouldDeny {
		m.counter("commands_would_deny_total", "Commands passed on that the users file would refuse, but for dry_run.", n, label("command", name))
	}
	const passwords = "Passwords that clients sent although dragontls authenticates for them, by whether they were the ones it uses."
	m.counter("client_passwords_total", passwords, st.PasswordsRight, label("result", "right"))
	m.counter("client_passwords_total", passwords, st.PasswordsWrong, label("result", "wrong"))
	m.counter("audit_dropped_total", "Lines of the audit log that were dropped.", st.AuditDropped+s.out.audit.dropped.Load())
	m.counter("log_dropped_total", "Lines of the log that were dropped, those of the audit log aside.", s.out.log.dropped.Load())
	m.histogram("command_seconds", "From a batch's write to its last reply; blocking commands aside.", st.CommandSeconds)
	m.counter("bytes_total", "RESP bytes, inside TLS.", st.BytesIn, label("direction", "in"))
	m.counter("bytes_total", "RESP bytes, inside TLS.", st.BytesOut, label("direction", "out"))
	m.gauge("buffer_bytes", "Memory lent to sessions for bytes on their way.", float64(st.BufferBytes))
	m.counter("accept_errors_total", "Failed accepts.", st.AcceptErrors)
	m.counter("panics_total", "Panics, each of which ended one session.", st.Panics)
	const connections = "Open backend connections: lanes, which sessions share, and those that are one session's own."
	m.gauge("backend_connections", connections, float64(max(0, st.BackendConnections-st.BackendLanes)), label("kind", "own"))
	m.gauge("backend_connections", connections, float64(st.BackendLanes), label("kind", "lane"))
	m.counter("backend_dials_total", "Dials of the backend, failed ones included.", st.BackendDials)
	for reason, n := range st.BackendErrors {
		m.counter("backend_errors_total", "Failures of the backend.", n, label("reason", reason))
	}
	for reason, n := range st.BackendRecoveries {
		m.counter("backend_recoveries_total", "Connections given up because new ones are served better.", n, label("reason", reason))
	}
	m.gauge("backend_up", "1: the backend has answered a PING within 10 s.", truth(st.BackendUp))
	collectLimits(m, s.server.Limits())
	s.collectCertificates(m)
	s.collectSettings(m)
	s.collectTrust(m, st)
}

func (s *service) collectHandshakes(m metrics, st proxy.Stats) {
	for k, n := range st.Handshakes {
		result := "ok"
		if k.Reason != "ok" {
			result = "refused"
		}
		m.counter("handshakes_total", "TLS handshakes by what came of them.", n, label("result", result),
			label("reason", k.Reason), label("version", k.Version), label("resumed", yes(k.Resumed)))
	}
	m.histogram("handshake_seconds", "Accept to finished handshake, of those that succeeded.", st.HandshakeSeconds)
}

func (s *service) collectCertificates(m metrics) {
	m.reloads(s.store.Stats(), "listener")
	m.collectHeld(s.store.Held(), "listener")
	if s.backend != nil {
		m.reloads(s.backend.Stats(), "backend")
		m.collectHeld(s.backend.Held(), "backend")
	}
	for _, c := range s.certificates() {
		// Serials are unique within one CA only.
		l := []admin.Label{label("role", c.Role), label("file", c.File), label("serial", c.Serial), label("sha256", c.Fingerprint[:16])}
		m.gauge("cert_not_after_seconds", "End of a certificate's validity, unix time.", float64(c.NotAfter.Unix()), l...)
		m.gauge("cert_not_before_seconds", "Start of a certificate's validity, unix time.", float64(c.NotBefore.Unix()), l...)
	}
	collectCRLs(m, s.store.Snapshot().CurrentCRLs(time.Now()))
	s.collectStaples(m)
	s.collectAlerts(m)
}

// collectTrust reports how many sessions each client CA and each trust generation has. A client CA without sessions can be removed.
func (s *service) collectTrust(m metrics, st proxy.Stats) {
	snapshot := s.store.Snapshot()
	m.gauge("trust_generation", "Grows with each change of client CAs, revoked certificates or rules.", float64(snapshot.TrustGeneration))
	for generation, n := range st.SessionsByGeneration {
		m.gauge("sessions_by_generation", "Open sessions by the trust generation of their handshake.", float64(n),
			label("generation", strconv.FormatUint(generation, 10)))
	}
	for _, c := range snapshot.Certs {
		if c.Role == certs.RoleClientCA {
			m.gauge("sessions_by_client_ca", "Open sessions by the client CA in which their chain ends.",
				float64(st.SessionsByAnchor[c.Fingerprint]), label("ca", c.Subject), label("sha256", c.Fingerprint[:16]))
		}
	}
	if !st.EarliestEnd.IsZero() {
		m.gauge("client_cert_min_not_after_seconds", "The first end of a certificate chain among connected clients, unix time.", seconds(st.EarliestEnd))
	}
}

// metrics emits with the prefix left to the admin package.
type metrics struct{ emit func(admin.Metric) }

func (m metrics) counter(name, help string, n uint64, l ...admin.Label) {
	m.emit(admin.Metric{Name: name, Help: help, Kind: admin.Counter, Labels: l, Value: float64(n)})
}

func (m metrics) gauge(name, help string, v float64, l ...admin.Label) {
	m.emit(admin.Metric{Name: name, Help: help, Kind: admin.Gauge, Labels: l, Value: v})
}

func (m metrics) histogram(name, help string, h proxy.Histogram) {
	out := &admin.Histogram{Sum: h.Sum, Buckets: make(map[float64]uint64, len(proxy.LatencyBuckets))}
	for i, n := range h.Counts {
		out.Count += n
		if i < len(proxy.LatencyBuckets) {
			out.Buckets[proxy.LatencyBuckets[i]] = out.Count
		}
	}
	m.emit(admin.Metric{Name: name, Help: help, Kind: admin.HistogramKind, Histogram: out})
}

// What the metrics of reads say, for the certificate files and for that of --env-file.
const (
	reloadHelp       = "Reads of the certificate files, and of the file of --env-file, by what came of them."
	lastReloadHelp   = "When the files last held what is served."
	lastReloadOKHelp = "1: the last read found no fault."
	heldHelp         = "When a source of files was held back because of a fault, unix time; what it held before is in use."
)

func (m metrics) reloads(st certs.Stats, of string) {
	m.counter("reload_total", reloadHelp, st.ReloadsOK, label("of", of), label("result", "ok"), label("reason", ""))
	m.counter("reload_total", reloadHelp, st.ReloadsUnchanged, label("of", of), label("result", "unchanged"), label("reason", ""))
	for reason, n := range st.ReloadsFailed {
		m.counter("reload_total", reloadHelp, n, label("of", of), label("result", "failed"), label("reason", reason))
	}
	m.gauge("last_reload_success_timestamp_seconds", lastReloadHelp, seconds(st.LastSuccess), label("of", of))
	m.gauge("last_reload_successful", lastReloadOKHelp, truth(st.LastOK), label("of", of))
}

// label: names in certificates are not always UTF-8, as Prometheus wants it.
func label(name, value string) admin.Label {
	return admin.Label{Name: name, Value: strings.ToValidUTF8(value, "?")}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
