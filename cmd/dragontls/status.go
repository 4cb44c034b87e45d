package main

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"time"

	"dragontls/certs"
	"dragontls/proxy"
)

// status is what /status.json says.
type status struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Ready   bool   `json:"ready"`
	// Reason is why it is not ready, in a word.
	Reason         string            `json:"reason,omitempty"`
	Detail         string            `json:"detail,omitempty"`
	UptimeSeconds  int64             `json:"uptime_seconds"`
	Connections    statusConnections `json:"connections"`
	SessionsClosed map[string]uint64 `json:"sessions_closed"`
	Handshakes     []statusHandshake `json:"handshakes"`
	Certificates   []statusCert      `json:"certificates"`
	CRLs           []statusCRL       `json:"crls"`
	Trust          statusTrust       `json:"trust"`
	Reloads        map[string]reload `json:"reloads"`
	Backend        statusBackend     `json:"backend"`
	Limits         []statusLimit     `json:"limits"`
}

type statusConnections struct {
	Open        int `json:"open"`
	Handshaking int `json:"handshaking"`
}

type statusHandshake struct {
	Reason  string `json:"reason"` // "ok", or why it was refused
	Version string `json:"version,omitempty"`
	Resumed bool   `json:"resumed"`
	Count   uint64 `json:"count"`
}

type statusCert struct {
	Role      string    `json:"role"`
	File      string    `json:"file"`
	Subject   string    `json:"subject"`
	Serial    string    `json:"serial"`
	SHA256    string    `json:"sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// Sessions, of a client CA: those whose chain ends in it.
	Sessions *int `json:"sessions,omitempty"`
}

type statusCRL struct {
	File       string    `json:"file"`
	Issuer     string    `json:"issuer"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
}

type statusTrust struct {
	// Generation grows with each change of client CAs, revoked certificates or rules.
	Generation uint64 `json:"generation"`
	// SessionsByGeneration counts open sessions by the generation of their handshake.
	SessionsByGeneration map[uint64]int `json:"sessions_by_generation"`
	// EarliestClientNotAfter is the first end of a certificate among connected clients.
	EarliestClientNotAfter *time.Time `json:"earliest_client_not_after,omitempty"`
}

type reload struct {
	OK          uint64            `json:"ok"`
	Unchanged   uint64            `json:"unchanged"`
	Failed      map[string]uint64 `json:"failed"`
	LastSuccess time.Time         `json:"last_success"`
	LastOK      bool              `json:"last_ok"`
	Watch       string            `json:"watch"`
	Held        []heldSource      `json:"held"`
}

type statusBackend struct {
	Up          bool              `json:"up"`
	Connections int               `json:"connections"` // lanes included
	Lanes       int               `json:"lanes"`
	Errors      map[string]uint64 `json:"errors"`
}

// status is what /status.json says now.
func (s *service) status() any {
	st, snapshot := s.server.Stats(), s.store.Snapshot()
	out := status{
		Version: buildVersion(), Go: runtime.Version(), UptimeSeconds: int64(time.Since(s.started).Seconds()),
		Connections:    statusConnections{st.Sessions, st.Handshaking},
		SessionsClosed: st.SessionsClosed, Handshakes: handshakesOf(st),
		Certificates: s.statusCerts(st), CRLs: []statusCRL{},
		Trust:   statusTrust{Generation: snapshot.TrustGeneration, SessionsByGeneration: st.SessionsByGeneration},
		Reloads: map[string]reload{"listener": reloadOf(s.store.Stats(), s.store.Held())},
		Backend: statusBackend{st.BackendUp, st.BackendConnections, st.BackendLanes, st.BackendErrors},
		Limits:  statusLimits(s.server.Limits()),
	}
	ready := s.ready()
	out.Ready, out.Reason, out.Detail = ready.OK, ready.Reason, ready.Detail
	if !st.EarliestEnd.IsZero() {
		out.Trust.EarliestClientNotAfter = &st.EarliestEnd
	}
	for _, l := range snapshot.CRLs {
		out.CRLs = append(out.CRLs, statusCRL(l))
	}
	if s.backend != nil {
		out.Reloads["backend"] = reloadOf(s.backend.Stats(), s.backend.Held())
	}
	return out
}

// certificates lists those of the listener and those toward the backend.
func (s *service) certificates() []certs.Cert {
	list := s.store.Snapshot().Certs
	if s.backend != nil {
		list = slices.Concat(list, s.backend.Certs())
	}
	return list
}

func (s *service) statusCerts(st proxy.Stats) []statusCert {
	out := []statusCert{}
	for _, c := range s.certificates() {
		one := statusCert{c.Role, c.File, c.Subject, c.Serial, c.Fingerprint, c.NotBefore, c.NotAfter, nil}
		if c.Role == certs.RoleClientCA {
			n := st.SessionsByAnchor[c.Fingerprint]
			one.Sessions = &n
		}
		out = append(out, one)
	}
	return out
}

func handshakesOf(st proxy.Stats) []statusHandshake {
	out := []statusHandshake{}
	for k, n := range st.Handshakes {
		out = append(out, statusHandshake{k.Reason, k.Version, k.Resumed, n})
	}
	slices.SortFunc(out, func(a, b statusHandshake) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Version, b.Version), cmp.Compare(yes(a.Resumed), yes(b.Resumed)))
	})
	return out
}

func reloadOf(st certs.Stats, held []certs.Held) reload {
	return reload{st.ReloadsOK, st.ReloadsUnchanged, maps.Clone(st.ReloadsFailed), st.LastSuccess, st.LastOK, st.WatchMode, heldSources(held)}
}
