package main

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"time"

	"dragontls/certs"
	"dragontls/proxy"
	"dragontls/proxy/admin/statuspage"
)

// status is what /status.json and the page at / say now.
func (s *service) status(q statuspage.Query) *statuspage.Status {
	st, limits, now := s.server.Stats(), s.server.Limits(), time.Now()
	out := &statuspage.Status{
		About: statuspage.About{Schema: statuspage.Schema, Version: buildVersion(), Go: runtime.Version(), Time: now,
			UptimeSeconds: int64(now.Sub(s.started).Seconds())},
		Traffic:  statuspage.Traffic{Connections: statuspage.Connections{Open: st.Sessions, Handshaking: st.Handshaking}},
		Ends:     statuspage.Ends{SessionsClosed: st.SessionsClosed, Handshakes: handshakesOf(st), Events: s.watched.events.Latest()},
		Trusted:  s.trusted(st, now),
		Backend:  backendOf(st, s.server.Backend()),
		Limits:   statusLimits(limits),
		Sessions: q.Select(sessionsOf(s.server.SessionList())),
	}
	s.watched.history.Fill(&out.Traffic)
	ready := s.ready()
	out.Ready, out.Reason, out.Detail = ready.OK, ready.Reason, ready.Detail
	out.Problems = s.problems(st, limits, now)
	return out
}

func backendOf(st proxy.Stats, b proxy.BackendInfo) statuspage.Backend {
	out := statuspage.Backend{
		URL: b.URL, Address: b.Address, Up: b.Up, PingSeconds: b.Ping.Seconds(),
		Connections: b.Lanes + b.Own, Lanes: b.Lanes, Errors: st.BackendErrors,
	}
	if !b.Since.IsZero() {
		out.Since = &b.Since
	}
	return out
}

func sessionsOf(list []proxy.SessionInfo) []statuspage.Session {
	out := make([]statuspage.Session, len(list))
	for i := range list {
		n := &list[i]
		out[i] = statuspage.Session{
			ID: n.ID, Identity: n.Identity, Subject: n.Subject, Serial: n.Serial, Address: n.Address, User: n.User,
			Library: n.Library, LibraryVersion: n.LibraryVersion, TLSVersion: n.TLSVersion, Since: n.Since,
			Commands: n.Commands, InFlight: n.InFlight, Place: n.Place, Generation: n.Generation,
		}
		if !n.NotAfter.IsZero() {
			out[i].NotAfter = &n.NotAfter
		}
	}
	return out
}

// trusted says what is served and whom is trusted.
func (s *service) trusted(st proxy.Stats, now time.Time) statuspage.Trusted {
	snapshot := s.store.Snapshot()
	out := statuspage.Trusted{
		Certificates: s.statusCerts(st, now), CRLs: []statuspage.CRL{},
		Trust:   statuspage.Trust{Generation: snapshot.TrustGeneration, SessionsByGeneration: st.SessionsByGeneration},
		Reloads: map[string]statuspage.Reload{"listener": reloadOf(s.store.Stats(), s.store.Held())},
	}
	if !st.EarliestEnd.IsZero() {
		out.Trust.EarliestClientNotAfter = &st.EarliestEnd
	}
	current := snapshot.CurrentCRLs(now)
	for _, l := range snapshot.CRLs {
		one := statuspage.CRL{File: l.File, Issuer: l.Issuer, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Entries: l.Entries,
			Current: slices.Contains(current, l)}
		if !l.NextUpdate.IsZero() {
			one.DaysLeft = daysUntil(now, l.NextUpdate)
		}
		out.CRLs = append(out.CRLs, one)
	}
	if s.backend != nil {
		out.Reloads["backend"] = reloadOf(s.backend.Stats(), s.backend.Held())
	}
	return out
}

// daysUntil is negative for what has ended.
func daysUntil(now, end time.Time) float64 { return end.Sub(now).Hours() / 24 }

// certificates lists those of the listener and those toward the backend.
func (s *service) certificates() []certs.Cert {
	list := s.store.Snapshot().Certs
	if s.backend != nil {
		list = slices.Concat(list, s.backend.Certs())
	}
	return list
}

func (s *service) statusCerts(st proxy.Stats, now time.Time) []statuspage.Certificate {
	out := []statuspage.Certificate{}
	for _, c := range s.certificates() {
		one := statuspage.Certificate{Role: c.Role, File: c.File, Subject: c.Subject, Serial: c.Serial, SHA256: c.Fingerprint,
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, DaysLeft: daysUntil(now, c.NotAfter)}
		if c.Role == certs.RoleClientCA {
			n := st.SessionsByAnchor[c.Fingerprint]
			one.Sessions = &n
		}
		out = append(out, one)
	}
	return out
}

func handshakesOf(st proxy.Stats) []statuspage.Handshake {
	out := []statuspage.Handshake{}
	for k, n := range st.Handshakes {
		out = append(out, statuspage.Handshake{Reason: k.Reason, Version: k.Version, Resumed: k.Resumed, Count: n})
	}
	slices.SortFunc(out, func(a, b statuspage.Handshake) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Version, b.Version), cmp.Compare(yes(a.Resumed), yes(b.Resumed)))
	})
	return out
}

func reloadOf(st certs.Stats, held []certs.Held) statuspage.Reload {
	return statuspage.Reload{
		OK: st.ReloadsOK, Unchanged: st.ReloadsUnchanged, Failed: maps.Clone(st.ReloadsFailed), LastSuccess: st.LastSuccess, LastOK: st.LastOK,
		Watch: st.WatchMode, Held: heldSources(held),
	}
}

func statusLimits(all []proxy.Limit) []statuspage.Limit {
	out := make([]statuspage.Limit, len(all))
	for i := range all {
		l := &all[i]
		out[i] = statuspage.Limit{Of: l.Of, Name: l.Name, Reached: l.Reached}
		if l.Value > 0 {
			out[i].Value = &l.Value
		}
		if l.Used >= 0 {
			out[i].Used = &l.Used
		}
	}
	return out
}
