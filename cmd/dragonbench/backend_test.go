package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSplitBackendsKeepsTheTimesOfAModelTogether(t *testing.T) {
	for list, want := range map[string][]string{
		"":                                {""},
		"redis-server,model, slow":        {"redis-server", "model", "slow"},
		"model:70us,900ns":                {"model:70us,900ns"},
		"slow,model:1ms,2us,redis-server": {"slow", "model:1ms,2us", "redis-server"},
		"model:1ms,2us,model:3ms,4us":     {"model:1ms,2us", "model:3ms,4us"},
		"redis-server,":                   {"redis-server", ""},
	} {
		if got := splitBackends(list); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", list, got, want)
		}
	}
}

func TestFindBackends(t *testing.T) {
	need(t, "redis-server")
	none := func(string) string { return "" }
	dragonfly := func(string) string { return "/bin/sh" }
	for _, test := range []struct {
		list  string
		env   func(string) string
		want  string // names and whose figures they are judged by
		fault string
	}{
		{"", none, "redis-server Redis", ""},
		{"", dragonfly, "dragonfly Dragonfly", ""},
		{"redis-server", dragonfly, "redis-server Redis", ""},
		{"redis-server,dragonfly,model,slow", dragonfly,
			"redis-server Redis, dragonfly Dragonfly, model:70µs,900ns model, model:0s,100µs slow", ""},
		{"model:1ms,2us", none, "model:1ms,2µs ", ""},
		{"dragonfly", none, "", "DRAGONFLY_BIN"},
		{"redis-server,", none, "", "a name is empty"},
		{"redis-server,valkey", none, "", "valkey"},
		{"model,slow,model:70us,900ns", none, "", "twice"},
	} {
		all, err := findBackends(test.list, test.env)
		var got []string
		for _, b := range all {
			got = append(got, b.name()+" "+b.figures())
		}
		if (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%q: got %v, want an error with %q", test.list, err, test.fault)
		} else if text := strings.Join(got, ", "); err == nil && text != test.want {
			t.Errorf("%q: got %q, want %q", test.list, text, test.want)
		}
	}
}

// No command of redis-server takes long on its own connection only.
func TestSlowCommandsNeedTheModel(t *testing.T) {
	r := testRig(t)
	b := &bench{rig: r, plan: quickPlan()}
	row := slowOneRow()
	i := &instance{found: found{peer: clearPeer()}, backend: r.shared, address: r.shared.address}
	if _, err := b.measureSlowOne(context.Background(), &row, i); !errors.Is(err, errUnmeasurable) || !strings.Contains(err.Error(), "--backend model") {
		t.Errorf("got %v", err)
	}
}

// What a model is told to take is what its clients see: a batch takes its time, and a slow command holds up nobody else.
func TestModelIsMeasuredAtItsPace(t *testing.T) {
	k, err := newKeeper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	program, err := pace{batch: 2 * time.Millisecond, each: 100 * time.Microsecond}.program()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r, err := newRig(ctx, k, program)
	defer r.close()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.findPeers(ctx, peersNamed([]string{clearName})); err != nil {
		t.Fatal(err)
	}
	i, err := r.start(ctx, r.peers[0], startOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.stop()
	b := &bench{rig: r, plan: plan{seconds: 1500 * time.Millisecond}}
	row := commandRow(getCommand, 64, 1, 16)
	s, err := b.measureLoad(ctx, &row, i)
	if err != nil || s.P50 < 3600 || len(s.Errors) > 0 {
		t.Errorf("got %+v, %v, want a p50 of 3.6 ms at least", s, err)
	}
	slow := slowOneRow()
	slow.work.Rate = 10
	if s, err = b.measureSlowOne(ctx, &slow, i); err != nil || s.Slow == 0 || len(s.Errors) > 0 {
		t.Errorf("got %+v, %v, want slow commands", s, err)
	}
}
