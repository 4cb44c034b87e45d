package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCapacityIsThatOfHAProxyInTheSameRun(t *testing.T) {
	peers := []found{{peer: dragontlsPeer("paired")}, {peer: haproxyPeer()}}
	own := &result{Row: capacityRow, Peer: paired, Samples: samplesOf(9000)}
	theirs := &result{Row: capacityRow, Peer: haproxyName, Samples: samplesOf(1000, 2000, 3000)}
	for _, test := range []struct {
		peers []found
		want  float64
		title string
	}{
		{peers, 600, "600/s of the 2,000/s of HAProxy"},
		{peers[:1], 2700, "2,700/s of the 9,000/s of dragontls paired"},
	} {
		b := &bench{rig: &rig{peers: test.peers}, results: []*result{own, theirs}, instances: map[string]*instance{}}
		for _, f := range test.peers {
			b.instances[f.name] = nil
		}
		r := loadRow(30)
		why, err := b.setRate(context.Background(), &r)
		if err != nil || why != "" || r.work.Rate != test.want || !strings.Contains(r.Title, test.title) {
			t.Errorf("got %q, %v, %v/s, title %q, want %v/s and %q", why, err, r.work.Rate, r.Title, test.want, test.title)
		}
	}
}

// A run without the closed loop measures it before the first open one, once.
func TestCapacityIsMeasuredOnce(t *testing.T) {
	r := testRig(t)
	ctx := context.Background()
	if err := r.findPeers(ctx, peersNamed([]string{clearName})); err != nil {
		t.Fatal(err)
	}
	p := plan{rows: rowsNamed([]string{"open-30"}), rounds: 1, seconds: time.Second}
	b := &bench{rig: r, plan: p, progress: newProgress(os.Stderr, 0)}
	if err := b.run(ctx); err != nil {
		t.Fatal(err)
	}
	first, second := b.capacity, rowsNamed([]string{"open-60"})[0]
	if len(first.Samples) != capacityRounds || first.Peer != clearName {
		t.Errorf("got capacity %+v", first)
	}
	if err := b.row(ctx, &second); err != nil {
		t.Fatal(err)
	}
	if b.capacity != first {
		t.Error("it was measured again")
	}
	low, high := b.plan.rows[0].work.Rate, second.work.Rate
	if low <= 0 || high < 1.99*low || high > 2.01*low {
		t.Errorf("got rates %v and %v, want 30 and 60 percent of one capacity", low, high)
	}
	for _, res := range b.results {
		if len(res.Samples) != 1 || res.Samples[0].P999 <= 0 || res.Unmeasured != "" {
			t.Errorf("got %+v", res)
		}
	}
	if find(b.results, capacityRow, clearName) != nil {
		t.Error("the closed loop is reported as if it had been asked for")
	}
}

func TestUnknownCapacityIsSaid(t *testing.T) {
	b := &bench{rig: &rig{peers: []found{{peer: clearPeer()}}}, capacity: &result{Unmeasured: "it fell over\nsomehow"}}
	r := loadRow(30)
	if why, err := b.setRate(context.Background(), &r); err != nil || why != "the capacity is unknown: it fell over" {
		t.Errorf("got %q, %v", why, err)
	}
}
