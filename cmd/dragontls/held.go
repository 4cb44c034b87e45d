package main

import (
	"fmt"
	"strings"
	"time"

	"dragontls/certs"
	"dragontls/proxy/admin/statuspage"
)

// heldSources are the sources of files that are held back, as /status.json shows them.
func heldSources(held []certs.Held) []statuspage.HeldSource {
	out := []statuspage.HeldSource{} // never null
	for _, h := range held {
		fault := h.Fault()
		out = append(out, statuspage.HeldSource{
			Source: h.Name, File: fault.File, Reason: fault.Reason, Error: fault.Err.Error(), Cure: fault.Cure, Since: h.Since,
		})
	}
	return out
}

// held is every source that is held back, of the listener and toward the backend.
func (s *service) held() []certs.Held {
	held := s.store.Held()
	if s.backend != nil {
		held = append(held, s.backend.Held()...)
	}
	return held
}

// heldDetail says on one line which files are not in use, since when and why; empty: all are.
func (s *service) heldDetail() string {
	var parts []string
	for _, h := range heldSources(s.held()) {
		parts = append(parts, fmt.Sprintf("held back since %s: %s of %s (%s): %s", h.Since.UTC().Format(time.RFC3339), h.Source, h.File, h.Reason, h.Error))
	}
	return oneLine(strings.Join(parts, "; "))
}

// collectHeld has one series for each source that is held back, and none for the others.
func (m metrics) collectHeld(held []certs.Held, of string) {
	for _, h := range heldSources(held) {
		m.gauge("reload_held_since_seconds", heldHelp, seconds(h.Since), label("of", of), label("source", h.Source), label("file", h.File), label("reason", h.Reason))
	}
}
