package main

import (
	"strings"
	"testing"
)

// twoPeers is a report with one row.
func twoPeers(ours, theirs []sample) *report {
	return &report{
		Rows:  rowsNamed([]string{"get-64B-c50-p1"}),
		Peers: []peerReport{{Name: "dragontls paired"}, {Name: "HAProxy"}},
		Results: []*result{
			{Row: "get-64B-c50-p1", Peer: "dragontls paired", Samples: ours},
			{Row: "get-64B-c50-p1", Peer: "HAProxy", Samples: theirs},
		},
	}
}

var atLeast = goal{work: "w", row: "get-64B-c50-p1", against: "HAProxy", metric: rate, want: 1.3}

func TestVerdictSaysByHowMuchAGoalIsMissed(t *testing.T) {
	atMost := goal{work: "w", row: "get-64B-c50-p1", against: "HAProxy", metric: rate, atMost: true, want: 0.5}
	for _, test := range []struct {
		name    string
		goal    goal
		ours    []float64
		outcome string
		detail  string
	}{
		{"reached", atLeast, []float64{140, 150, 145}, reached, "1.45 (1.40..1.50)"},
		{"missed", atLeast, []float64{104, 104, 104}, missed, "missed by 20 %"},
		{"hardly missed", atLeast, []float64{129.9, 129.9, 129.9}, missed, "missed by 1 %"},
		{"rounds disagree", atLeast, []float64{120, 140, 150}, reached, "the rounds disagree"},
		{"at most, reached", atMost, []float64{50, 40, 45}, reached, "0.45"},
		{"at most, missed", atMost, []float64{75, 75, 75}, missed, "missed by 50 %"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := test.goal.judge(twoPeers(samplesOf(test.ours...), samplesOf(100, 100, 100)))
			if v.Outcome != test.outcome || !strings.Contains(v.Detail, test.detail) {
				t.Errorf("got %s: %s, want %s: %s", v.Outcome, v.Detail, test.outcome, test.detail)
			}
		})
	}
}

func TestVerdictSaysWhyThereIsNone(t *testing.T) {
	full := twoPeers(samplesOf(1), samplesOf(1))
	noPeer := twoPeers(samplesOf(1), nil)
	noPeer.Results, noPeer.Peers = noPeer.Results[:1], noPeer.Peers[:1]
	noPeer.Missing = []missing{{"HAProxy", "not installed", "apt-get install haproxy"}}
	failed := twoPeers(samplesOf(1), nil)
	failed.Results[1].Unmeasured = "it fell over\nsomehow"
	otherRow := atLeast
	otherRow.row = "churn"
	for _, test := range []struct {
		name   string
		goal   goal
		report *report
		want   string
	}{
		{"not installed", atLeast, noPeer, "HAProxy: not installed"},
		{"failed", atLeast, failed, "HAProxy: it fell over"},
		{"other row", otherRow, full, "--only churn"},
		{"nothing done", atLeast, twoPeers(samplesOf(0), samplesOf(0)), "too little"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := test.goal.judge(test.report)
			if v.Outcome != notMeasurable || !strings.Contains(v.Detail, test.want) {
				t.Errorf("got %s: %s, want %s: %s", v.Outcome, v.Detail, notMeasurable, test.want)
			}
		})
	}
}

func TestVerdictNamesErrors(t *testing.T) {
	bad := samplesOf(200)
	bad[0].Errors = map[string]int{"wrong reply": 3}
	v := atLeast.judge(twoPeers(bad, samplesOf(100)))
	if want := "3 x wrong reply"; !strings.Contains(v.Detail, want) {
		t.Errorf("got %q, want %q in it", v.Detail, want)
	}
}

func TestStormIsReachedOnlyByARealStorm(t *testing.T) {
	good := sample{Rate: 98, Calm: 100, Rotations: 1000, Leaves: 900, Handshakes: 240}
	with := func(change func(*sample)) sample {
		s := good
		change(&s)
		return s
	}
	for _, test := range []struct {
		name    string
		sample  sample
		outcome string
	}{
		{"good", good, reached},
		{"slower", with(func(s *sample) { s.Rate = 80 }), missed},
		{"errors", with(func(s *sample) { s.Errors = map[string]int{"closed by peer": 1} }), missed},
		{"nothing changed", with(func(s *sample) { s.Leaves = 1 }), missed},
		{"short", with(func(s *sample) { s.Rotations = 150 }), notMeasurable},
		{"few handshakes", with(func(s *sample) { s.Handshakes = 50 }), notMeasurable},
	} {
		rep := &report{Peers: []peerReport{{Name: "dragontls paired"}},
			Results: []*result{{Row: "storm", Peer: "dragontls paired", Samples: []sample{test.sample}}}}
		if got := judgeStorm(rep); got.Outcome != test.outcome {
			t.Errorf("%s: got %s (%s), want %s", test.name, got.Outcome, got.Detail, test.outcome)
		}
	}
}
