package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"dragontls/certs"
	"dragontls/config"
	"dragontls/proxy"
	"dragontls/proxy/admin/statuspage"
)

// problems are what is not as it should be, the gravest first, each with its cure.
func (s *service) problems(st proxy.Stats, limits []proxy.Limit, now time.Time) []statuspage.Problem {
	all := slices.Concat([]statuspage.Problem{}, s.readyProblems(), s.heldProblems(), s.endProblems(now), limitProblems(limits)) // never null
	add := func(when bool, what, cure string) {
		if when {
			all = append(all, statuspage.Problem{Severity: statuspage.SeverityWarning, What: what, Cure: cure})
		}
	}
	add(st.Panics > 0, fmt.Sprintf("%d panics have each ended a session since the start", st.Panics), "report it, with the stack in the log")
	add(s.out.log.dropped.Load() > 0, fmt.Sprintf("%d lines of the log were dropped", s.out.log.dropped.Load()), "a faster reader of stderr, or a higher LOG_LEVEL")
	dropped := st.AuditDropped + s.out.audit.dropped.Load()
	add(dropped > 0, fmt.Sprintf("%d lines of the audit log were dropped", dropped), "a faster reader of stderr")
	grave := []string{statuspage.SeverityError, statuspage.SeverityWarning, statuspage.SeverityNote}
	slices.SortStableFunc(all, func(a, b statuspage.Problem) int {
		return cmp.Compare(slices.Index(grave, a.Severity), slices.Index(grave, b.Severity))
	})
	return all
}

// readyProblems says why /readyz fails, or what keeps commands from being served all the same.
func (s *service) readyProblems() []statuspage.Problem {
	r := s.readiness()
	p := statuspage.Problem{Severity: statuspage.SeverityError, What: oneLine(r.Detail)}
	if r.OK {
		p.Severity = statuspage.SeverityWarning
	}
	ofBackend, isBackend := strings.CutPrefix(r.Reason, "backend_")
	fault, known := config.Reasons()["backend faults"][ofBackend]
	switch {
	case r.Reason == "":
		return nil
	case r.Reason == "draining":
		p.Severity, p.What, p.Cure = statuspage.SeverityWarning, "dragontls has been told to stop, and ends its sessions", "none, if that is intended"
	case r.Reason == "certificate":
		p.What = "the server certificate is not valid now: " + oneLine(r.Detail)
		p.Cure = "replace the certificate and its key; no restart is needed"
	case isBackend && known:
		p.What, p.Cure = fault.Line, fault.Cure
		if b := s.server.Backend(); b.URL != "" {
			p.What += " (" + b.URL + ")"
		}
	}
	return []statuspage.Problem{p}
}

func (s *service) heldProblems() (all []statuspage.Problem) {
	for _, h := range heldSources(s.held()) {
		all = append(all, statuspage.Problem{
			Severity: statuspage.SeverityWarning,
			What: oneLine(fmt.Sprintf("%s of %s has been held back since %s, and what it held before is in use: %s", h.Source, h.File,
				h.Since.UTC().Format(time.RFC3339), h.Error)),
			Cure: cmp.Or(oneLine(h.Cure), "correct the file: it is read again as soon as it changes"),
		})
	}
	return all
}

// endProblems says which certificates and CRLs end soon.
func (s *service) endProblems(now time.Time) (all []statuspage.Problem) {
	for _, e := range certs.InUse(s.store, s.backend, now) {
		severity := statuspage.SeverityOfEnd(now, e.NotBefore, e.NotAfter)
		if severity == "" {
			continue
		}
		what := "the certificate (" + strings.ReplaceAll(e.Role, "_", " ") + ")"
		if e.Role == certs.RoleCRL {
			what = "the CRL"
		}
		ends := "ends in " + roughly(e.Left)
		if e.Left < 0 {
			ends = "ended " + roughly(-e.Left) + " ago"
		}
		what = fmt.Sprintf("%s of %q in %s %s", what, e.Name, e.File, ends)
		if e.OnDisk != "" {
			what += "; " + e.OnDisk
		}
		all = append(all, statuspage.Problem{Severity: severity, What: oneLine(what), Cure: e.Cure})
	}
	return all
}

func limitProblems(limits []proxy.Limit) (all []statuspage.Problem) {
	for i, l := range statusLimits(limits) {
		share := l.Share()
		if share <= statuspage.NearLimit {
			continue
		}
		r := config.Reasons()["limits"][l.Of]
		what := fmt.Sprintf("%s is %d %% full (%d of %d)", l.Name, int(100*share), limits[i].Used, limits[i].Value)
		if share >= 1 {
			what = fmt.Sprintf("%s is reached (%d): %s", l.Name, limits[i].Value, r.Cause)
		}
		all = append(all, statuspage.Problem{Severity: statuspage.SeverityWarning, What: what, Cure: r.Cure})
	}
	return all
}
