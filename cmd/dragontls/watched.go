package main

import (
	"context"
	"errors"
	"time"

	"dragontls/certs"
	"dragontls/config"
	"dragontls/proxy"
	"dragontls/proxy/admin/statuspage"
)

// watched is what the status page remembers. Its memory does not grow. Safe for concurrent use.
type watched struct {
	events  statuspage.Events
	history statuspage.History
}

// notice takes a client that was refused, or a session that was closed for a cause.
func (w *watched) notice(n proxy.Notice) {
	e := statuspage.Event{Kind: statuspage.EventClosed, Reason: n.Reason, Last: time.Now(), Client: n.Client, Serial: n.Serial, Error: n.Error}
	table := "reasons of sessions"
	if n.Refused {
		e.Kind, table = statuspage.EventRefused, "reasons of handshakes"
	}
	if n.From.IsValid() {
		e.Address = n.From.String()
	}
	r := config.Reasons()[table][n.Reason]
	e.Cause, e.Cure = r.Cause, r.Cure
	w.events.Add(e)
}

// fault takes the faults for which a reload has held sources back; nil: all files are good again.
func (w *watched) fault(err error) {
	for _, one := range flat([]error{err}) {
		e := statuspage.Event{Kind: statuspage.EventReload, Reason: certs.ReasonParse, Last: time.Now(), Error: inShort(one.Error())}
		if f, ok := errors.AsType[*certs.Fault](one); ok {
			e.Reason, e.File, e.Error, e.Cure = f.Reason, f.File, inShort(f.Err.Error()), oneLine(f.Cure)
		}
		w.events.Add(e)
	}
}

// inShort is a text that others chose, on one line and bounded.
func inShort(s string) string {
	s = oneLine(s)
	if runes := []rune(s); len(runes) > maxQuoted {
		s = string(runes[:maxQuoted-1]) + "…"
	}
	return s
}

// rememberFaults has the status page remember the faults of reloads from now on.
func (s *service) rememberFaults() {
	s.store.OnFault(s.watched.fault)
	if s.backend != nil {
		s.backend.OnFault(s.watched.fault)
	}
}

// watch takes samples until ctx ends.
func (s *service) watch(ctx context.Context) {
	t := time.NewTicker(statuspage.SampleInterval)
	defer t.Stop()
	for {
		s.watched.history.Add(sampleOf(s.server.Stats(), time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func sampleOf(st proxy.Stats, now time.Time) statuspage.Sample {
	out := statuspage.Sample{Time: now, Connections: st.Sessions, BytesIn: st.BytesIn, BytesOut: st.BytesOut, Seconds: map[string]statuspage.Durations{}}
	for _, path := range []map[string]uint64{st.Commands, st.CommandsLane, st.CommandsLocal} {
		for _, n := range path {
			out.Commands += n
		}
	}
	for k, n := range st.Handshakes {
		if k.Reason == "ok" {
			out.Handshakes += n
		} else {
			out.Refused += n
		}
	}
	for path, h := range latencies(st) {
		out.Seconds[path] = statuspage.Durations{Bounds: proxy.LatencyBuckets[:], Counts: h.Counts[:]}
	}
	return out
}

// latencies returns how long commands took, by the way they went.
func latencies(st proxy.Stats) map[string]proxy.Histogram {
	return map[string]proxy.Histogram{"all": st.CommandSeconds}
}
