package main

import (
	"strings"
	"testing"
)

// twoPeers is a report with one row.
func twoPeers(ours, theirs []sample) *backendReport {
	return &backendReport{
		Figures: figuresRedis,
		Rows:    rowsNamed([]string{"get-64B-c50-p1"}),
		Peers:   []peerReport{{Name: "dragontls paired"}, {Name: "HAProxy"}},
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
		report *backendReport
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

// Each backend has figures of its own; the model stands for Dragonfly and is called a model.
func TestGoalsAreThoseOfTheBackend(t *testing.T) {
	one := goal{row: "r", metric: rate, want: 1.6, dragonfly: 1.5}
	both := goal{row: "r", metric: rate, want: 2}
	dragonfly := goal{row: "r", metric: rate, dragonfly: 1.3}
	slow := goal{row: "r", metric: rate, slow: 0.8}
	for _, test := range []struct {
		figures string
		want    [4]float64
	}{
		{figuresRedis, [4]float64{1.6, 2, 0, 0}},
		{figuresDragonfly, [4]float64{1.5, 2, 1.3, 0}},
		{figuresModel, [4]float64{1.5, 2, 1.3, 0}},
		{figuresSlow, [4]float64{0, 0, 0, 0.8}},
		{"", [4]float64{}},
	} {
		got := [4]float64{one.wantedOn(test.figures), both.wantedOn(test.figures), dragonfly.wantedOn(test.figures), slow.wantedOn(test.figures)}
		if got != test.want {
			t.Errorf("%q: got %v, want %v", test.figures, got, test.want)
		}
	}
	for figures, want := range map[string]string{figuresModel: ">= 0.90", figuresRedis: ">= 1.00"} {
		rep := twoPeers(samplesOf(95), nil)
		rep.Figures = figures
		rep.Peers = append(rep.Peers, peerReport{Name: ownTLSName})
		rep.Results = append(rep.Results, &result{Row: "get-64B-c50-p1", Peer: ownTLSName, Samples: samplesOf(100)})
		found := false
		for _, v := range judge(&report{Backends: []*backendReport{rep}}) {
			if v.Work == "50 connections: throughput against own TLS" {
				found = true
				if v.Backend != figures || v.Wanted != want || (v.Outcome == reached) != (figures == figuresModel) {
					t.Errorf("%s: got %+v, want %s", figures, v, want)
				}
			}
		}
		if !found {
			t.Errorf("%s: no verdict against own TLS", figures)
		}
	}
}

// Figures against paired compare two modes in one row: without shared there is no such figure.
func TestGoalsAgainstPairedAndAgainstAnotherRow(t *testing.T) {
	again := goal{work: "w", row: "get-64B-c50-p1", against: paired, metric: p99, atMost: true, want: 1}
	rep := twoPeers([]sample{{P99: 200}}, nil)
	if v := again.judge(rep); v.Outcome != notMeasurable || !strings.Contains(v.Detail, shared) {
		t.Errorf("without shared: got %+v", v)
	}
	rep.Peers = append(rep.Peers, peerReport{Name: shared})
	rep.Results = append(rep.Results, &result{Row: "get-64B-c50-p1", Peer: shared, Samples: []sample{{P99: 150}}})
	if v := again.judge(rep); v.Outcome != reached || !strings.Contains(v.Detail, "dragontls shared: 0.75") || !strings.Contains(v.Work, "against dragontls paired") {
		t.Errorf("got %+v", v)
	}
	linear := goal{work: "w", row: "memory-10000", otherRow: "memory-1000", metric: perConn, atMost: true, want: 1.05, only: paired}
	if v := linear.judge(rep); v.Outcome != notMeasurable || !strings.Contains(v.Detail, "--only memory-10000") {
		t.Errorf("neither row: got %+v", v)
	}
	rep.Results = append(rep.Results, &result{Row: "memory-10000", Peer: paired, Samples: []sample{{PerConn: 22000}}})
	if v := linear.judge(rep); v.Outcome != notMeasurable || !strings.Contains(v.Detail, "--only memory-1000)") {
		t.Errorf("one row: got %+v", v)
	}
	rep.Results = append(rep.Results, &result{Row: "memory-1000", Peer: paired, Samples: []sample{{PerConn: 20000}}})
	if v := linear.judge(rep); v.Outcome != missed || !strings.Contains(v.Detail, "1.10") {
		t.Errorf("both: got %+v", v)
	}
	old := goal{work: "w", row: "get-64B-c50-p1", against: oldShared, metric: rate, want: 1}
	if v := old.judge(rep); v.Outcome != notMeasurable || !strings.Contains(v.Detail, oldVariable) {
		t.Errorf("without an old build: got %+v", v)
	}
}

func TestMetricsMadeOfOthers(t *testing.T) {
	s := sample{Rate: 100e3, ProxyCPU: 8, BackendCPU: 3, LoadCPU: 7, P99: 3000, CalmP99: 2000}
	if got := cpusInUse(s); got < 1.799 || got > 1.801 {
		t.Errorf("CPUs in use: got %v, want 1.8", got)
	}
	if got := p99Ratio(s); got != 1.5 {
		t.Errorf("p99: got %v, want 1.5", got)
	}
	if got := p99Ratio(sample{P99: 1}); got != 0 {
		t.Errorf("p99 without a quiet one: got %v, want 0", got)
	}
}

func TestStormIsReachedOnlyByARealStorm(t *testing.T) {
	good := sample{Rate: 97, Calm: 100, Rotations: 1000, Leaves: 900, Handshakes: 240}
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
		{"slower", with(func(s *sample) { s.Rate = 96 }), missed},
		{"errors", with(func(s *sample) { s.Errors = map[string]int{"closed by peer": 1} }), missed},
		{"nothing changed", with(func(s *sample) { s.Leaves = 1 }), missed},
		{"short", with(func(s *sample) { s.Rotations = 150 }), notMeasurable},
		{"few handshakes", with(func(s *sample) { s.Handshakes = 50 }), notMeasurable},
	} {
		rep := &backendReport{Peers: []peerReport{{Name: "dragontls paired"}},
			Results: []*result{{Row: "storm", Peer: "dragontls paired", Samples: []sample{test.sample}}}}
		if got := judgeStorm(rep); got.Outcome != test.outcome {
			t.Errorf("%s: got %s (%s), want %s", test.name, got.Outcome, got.Detail, test.outcome)
		}
	}
}
