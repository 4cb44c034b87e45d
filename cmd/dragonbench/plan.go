package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// row is one kind of work, the same for every peer.
type row struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Note  string `json:"note,omitempty"` // how it is measured, where the title does not say
	work  work   // for the generator; address and certificates are filled in for each peer
	// measure takes one sample. It may start an instance of its own, or use the running one.
	measure  func(*bench, context.Context, *row, *instance) (sample, error)
	extra    time.Duration // what a sample takes beside warm-up and windows
	rounds   int           // 0: those of the plan
	ownOnly  bool          // dragontls alone
	distinct bool          // each connection shows a client certificate of its own
	// share, in percent, makes the rate of an open loop from what HAProxy does in a closed one; 0: the rate is given.
	share int
	// stretch makes the last window this much longer than the others.
	stretch float64
}

// plan says what a run measures.
type plan struct {
	name    string
	rows    []row
	peers   []peer
	rounds  int
	warmup  time.Duration
	seconds time.Duration // length of a window
	settle  time.Duration // how long idle connections are left alone before memory is read
}

// chosenPeers are those that the figures to reach speak of. The others need --full or --only.
var chosenPeers = []string{paired, shared, oldPrefix + paired, oldShared, haproxyName, "ghostunnel", ownTLSName}

// Rows that a run without --full takes.
var (
	defaultRows = []string{"get-64B-c50-p1", "get-64B-c500-p1", "get-64B-c50-p16", "get-64B-c1-p1", "handshake-full",
		"handshake-resumed", "memory-3000", "storm"}
	quickRows = []string{"get-64B-c50-p1", "get-64B-c50-p16", "get-64B-c1-p1", "handshake-full", "memory-200"}
)

func quickPlan() plan {
	return plan{name: "quick", rows: rowsNamed(quickRows), peers: peersNamed(chosenPeers), rounds: 4,
		warmup: 150 * time.Millisecond, seconds: 400 * time.Millisecond, settle: time.Second}
}

func defaultPlan() plan {
	p := plan{name: "default", rows: rowsNamed(defaultRows), peers: peersNamed(chosenPeers), rounds: 5,
		warmup: 500 * time.Millisecond, seconds: 3 * time.Second, settle: settleTime}
	for i := range p.rows {
		switch r := &p.rows[i]; r.work.Kind {
		case storm: // 1,000 rotations take two minutes for each peer; the goal is dragontls' own
			r.ownOnly = true
		case idle: // rounds hardly differ
			r.rounds = 2
		}
	}
	return p
}

func fullPlan() plan {
	p := plan{name: "full", peers: allPeers(), rounds: 5, warmup: time.Second, seconds: 3 * time.Second, settle: settleTime}
	p.rows = slices.DeleteFunc(matrix(), func(r row) bool { return r.ID == "memory-200" })
	return p
}

func rowsNamed(ids []string) (rows []row) {
	for _, id := range ids {
		for _, r := range matrix() {
			if r.ID == id {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

func peersNamed(names []string) (peers []peer) {
	for _, p := range allPeers() {
		if slices.Contains(names, p.name) {
			peers = append(peers, p)
		}
	}
	return peers
}

// narrow keeps what the comma-separated patterns name. Those that match a row choose among all rows, those that match
// a peer among all peers; without any of its kind the plan's own choice stays.
func (p *plan) narrow(patterns string) error {
	var rows []row
	var peers []peer
	all := matrix()
	for pattern := range strings.SplitSeq(patterns, ",") {
		pattern = strings.TrimSpace(pattern)
		hit := false
		for _, r := range all {
			if matches(pattern, r.ID) {
				hit = true
				rows = append(rows, r)
			}
		}
		for _, one := range allPeers() {
			if matches(pattern, one.name) {
				hit = true
				peers = append(peers, one)
			}
		}
		if !hit {
			return fmt.Errorf("--only %q: no such row or peer\npeers: %s\nrows: %s", pattern, names(allPeers()), ids(all))
		}
	}
	if rows != nil {
		p.rows = slices.DeleteFunc(all, func(r row) bool { return !hasRow(rows, r.ID) })
	}
	if peers != nil {
		p.peers = slices.DeleteFunc(allPeers(), func(one peer) bool {
			return !slices.ContainsFunc(peers, func(other peer) bool { return other.name == one.name })
		})
	}
	return nil
}

// matches compares without case; a pattern is a glob, or the beginning of a word of the name.
func matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if ok, err := path.Match(pattern, name); err == nil && ok {
		return true
	}
	if pattern == "" || strings.Contains(name, "-") { // a row is named in full or by a glob
		return false
	}
	return strings.HasPrefix(name, pattern) || strings.HasSuffix(name, " "+pattern)
}

// isOwn reports whether a peer is dragontls, of whichever build.
func isOwn(peer string) bool {
	return strings.HasPrefix(strings.TrimPrefix(peer, oldPrefix), "dragontls")
}

func hasRow(rows []row, id string) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return r.ID == id })
}

func names(peers []peer) string {
	var all []string
	for _, p := range peers {
		all = append(all, p.name)
	}
	return strings.Join(all, ", ")
}

func ids(rows []row) string {
	var all []string
	for _, r := range rows {
		all = append(all, r.ID)
	}
	return strings.Join(all, ", ")
}

func (p *plan) roundsOf(r *row) int {
	if r.rounds > 0 {
		return min(r.rounds, p.rounds)
	}
	return p.rounds
}

// sampleTime is about how long one sample of a row takes.
func (p *plan) sampleTime(r *row) time.Duration {
	t := p.warmup + r.extra + 100*time.Millisecond
	for _, window := range p.windows(r) {
		t += window
	}
	return t
}

// windows are the lengths of a row's windows: storm has a calm one and a stormy one.
func (p *plan) windows(r *row) []time.Duration {
	switch r.work.Kind {
	case storm:
		return []time.Duration{p.seconds, time.Duration(float64(p.seconds) * r.stretch)}
	case laggards:
		return []time.Duration{p.seconds, p.seconds}
	case idle:
		return []time.Duration{p.settle}
	case outage:
		return nil
	}
	return []time.Duration{p.seconds}
}

// takes says whether the row makes sense for a peer.
func (r *row) takes(p peer) bool {
	if r.ownOnly && !isOwn(p.name) {
		return false
	}
	return !p.clear || r.work.Kind != handshakes && r.work.Kind != bursts && r.work.Kind != storm
}

// estimate is about how long a run of the plan takes with these peers.
func (p *plan) estimate(peers []found) (total time.Duration) {
	for i := range p.rows {
		r := &p.rows[i]
		for _, f := range peers {
			if r.takes(f.peer) {
				total += time.Duration(p.roundsOf(r)) * p.sampleTime(r)
			}
		}
	}
	return total
}
