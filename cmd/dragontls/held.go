package main

import (
	"fmt"
	"strings"
	"time"

	"dragontls/certs"
)

// heldSource is a source of files that is held back, as /status.json shows it.
type heldSource struct {
	Source string    `json:"source"`
	File   string    `json:"file"`
	Reason string    `json:"reason"`
	Error  string    `json:"error"`
	Since  time.Time `json:"since"`
}

func heldSources(held []certs.Held) []heldSource {
	out := []heldSource{} // never null
	for _, h := range held {
		fault := h.Fault()
		out = append(out, heldSource{h.Name, fault.File, fault.Reason, fault.Err.Error(), h.Since})
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
		m.gauge("reload_held_since_seconds", "When a source of files was held back because of a fault, unix time; what it held before is in use.",
			seconds(h.Since), label("of", of), label("source", h.Source), label("file", h.File), label("reason", h.Reason))
	}
}
