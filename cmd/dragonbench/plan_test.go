package main

import (
	"slices"
	"testing"
	"time"
)

func foundAll(p plan) (all []found) {
	for _, one := range p.peers {
		if one.name != "dragontls shared" {
			all = append(all, found{peer: one})
		}
	}
	return all
}

func TestPlansTakeTheTimeTheyPromise(t *testing.T) {
	for _, test := range []struct {
		plan        plan
		least, most time.Duration
	}{
		{quickPlan(), 30 * time.Second, 75 * time.Second},
		{defaultPlan(), 8 * time.Minute, 13 * time.Minute},
		{fullPlan(), 2 * time.Hour, 8 * time.Hour},
	} {
		got := test.plan.estimate(foundAll(test.plan))
		if got < test.least || got > test.most {
			t.Errorf("%s: got %v, want %v to %v", test.plan.name, got, test.least, test.most)
		}
	}
}

func TestEveryGoalHasItsRow(t *testing.T) {
	for _, g := range goals() {
		for _, id := range []string{g.row, g.otherRow} {
			if id != "" && !hasRow(fullPlan().rows, id) {
				t.Errorf("%s: there is no row %q", g.work, id)
			}
		}
		for _, peer := range []string{g.against, g.only} {
			if peer != "" && !slices.Contains(chosenPeers, peer) {
				t.Errorf("%s: peer %q is not in the default", g.work, peer)
			}
		}
		if g.want == 0 && g.dragonfly == 0 && g.slow == 0 {
			t.Errorf("%s: it wants nothing", g.work)
		}
	}
	if got := defaultPlan().rows; len(got) != len(defaultRows) {
		t.Errorf("got %d rows, want %d: one is not in the matrix", len(got), len(defaultRows))
	}
}

func TestRowsHaveDifferentNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range matrix() {
		if seen[r.ID] {
			t.Errorf("%s: twice", r.ID)
		}
		seen[r.ID] = true
		if r.measure == nil || r.Title == "" {
			t.Errorf("%s: incomplete", r.ID)
		}
	}
}

func TestOnlyChoosesRowsAndPeers(t *testing.T) {
	for _, test := range []struct {
		only  string
		rows  []string
		peers []string
	}{
		{"storm", []string{"storm"}, nil},
		{"get-64B-c1-*", []string{"get-64B-c1-p1", "get-64B-c1-p16", "get-64B-c1-p100"}, nil},
		{"haproxy", nil, []string{"HAProxy"}},
		{"dragontls,nginx", nil, []string{"dragontls paired", "dragontls shared", "nginx stream"}},
		{"paired, churn", []string{"churn"}, []string{"dragontls paired"}},
		{"own tls", nil, []string{ownTLSName}},
		{"open-?0", []string{"open-30", "open-60", "open-90"}, nil},
		{"get-64B-c?-p1-distinct", []string{"get-64B-c2-p1-distinct", "get-64B-c4-p1-distinct", "get-64B-c8-p1-distinct"}, nil},
		{"slow-readers*", []string{"slow-readers", "slow-readers-distinct", "slow-readers-same"}, nil},
		{"handshake-full-*", []string{"handshake-full-orderly", "handshake-full-burst", "handshake-full-burst-orderly"}, nil},
	} {
		t.Run(test.only, func(t *testing.T) {
			p := quickPlan()
			if err := p.narrow(test.only); err != nil {
				t.Fatal(err)
			}
			want := quickPlan()
			if test.rows == nil {
				for _, r := range want.rows {
					test.rows = append(test.rows, r.ID)
				}
			}
			if test.peers == nil {
				for _, one := range want.peers {
					test.peers = append(test.peers, one.name)
				}
			}
			var rows, peers []string
			for _, r := range p.rows {
				rows = append(rows, r.ID)
			}
			for _, one := range p.peers {
				peers = append(peers, one.name)
			}
			if !slices.Equal(rows, test.rows) || !slices.Equal(peers, test.peers) {
				t.Errorf("got %q %q, want %q %q", rows, peers, test.rows, test.peers)
			}
		})
	}
}
