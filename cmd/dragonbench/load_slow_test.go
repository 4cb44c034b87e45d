package main

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

func isGet(args []string, key string) bool { return slices.Equal(args, []string{"GET", key}) }

func laggardsAt(address string) work {
	return work{Kind: laggards, Address: address, Command: getCommand, Size: 64, Connections: 2, Pipeline: 1, Laggards: 4}
}

// Clients that read nothing, or slowly, neither count nor fail, and those beside them are served.
func TestLaggardsAskBesideThoseThatKeepUp(t *testing.T) {
	var asked atomic.Int64
	s := newScripted(t, func(_ int64, args []string, reply string) string {
		if isGet(args, largeKey) {
			asked.Add(1)
		}
		return reply
	})
	got := loadUntil(t, laggardsAt(s.Addr().String()), func(w window) bool { return asked.Load() >= 4 && w.Count > 0 })
	if len(got.Errors) != 0 || got.Closed != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestLaggardsComeAgainWhenTheyAreClosed(t *testing.T) {
	s := newScripted(t, func(_ int64, args []string, reply string) string {
		if isGet(args, largeKey) {
			return ""
		}
		return reply
	})
	var closed int64
	// Two of them read, and thereby notice: three closings are more than both once.
	got := loadUntil(t, laggardsAt(s.Addr().String()), func(w window) bool {
		closed += w.Closed
		return closed > 2 || len(w.Errors) > 0
	})
	if len(got.Errors) != 0 {
		t.Errorf("got errors %v", got.Errors)
	}
}

func TestLaggardsNoticeWrongReplies(t *testing.T) {
	s := newScripted(t, func(_ int64, args []string, reply string) string {
		if isGet(args, largeKey) {
			return strings.Replace(reply, "dragonbench", "somebody ls", 1)
		}
		return reply
	})
	loadUntil(t, laggardsAt(s.Addr().String()), func(w window) bool { return w.Errors["wrong reply"] > 0 })
}

// Laggards that share a certificate show the first after those of the clients that keep up; else each has the next.
func TestCertificatesOfLaggards(t *testing.T) {
	for _, together := range []bool{false, true} {
		g := generator{work: work{Connections: 3, Together: together}}
		var shown []int
		for i := range 2 {
			shown = append(shown, g.laggardCertificate(i))
		}
		want := []int{3, 4}
		if together {
			want = []int{3, 3}
		}
		if !slices.Equal(shown, want) {
			t.Errorf("together %v: got certificates %v, want %v", together, shown, want)
		}
	}
}

func slowOneAt(address string) work {
	return work{Kind: slowOne, Address: address, Command: getCommand, Size: 64, Connections: 2, Pipeline: 1, Rate: 100}
}

func TestSlowCommandsAreCountedByThemselves(t *testing.T) {
	var slow atomic.Int64
	s := newScripted(t, func(_ int64, args []string, reply string) string {
		if isGet(args, slowKey) {
			slow.Add(1)
		}
		return reply
	})
	got := loadUntil(t, slowOneAt(s.Addr().String()), func(w window) bool { return w.Slow > 0 && w.Count > 0 })
	if len(got.Errors) != 0 || got.Slow > slow.Load() {
		t.Errorf("got %+v, and the server answered %d slow commands", got, slow.Load())
	}
}

func TestSlowCommandsAreChecked(t *testing.T) {
	s := newScripted(t, func(_ int64, args []string, reply string) string {
		if isGet(args, slowKey) {
			return "$-1\r\n"
		}
		return reply
	})
	loadUntil(t, slowOneAt(s.Addr().String()), func(w window) bool { return w.Errors["wrong reply"] > 0 })
}
