//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// mixedLoad has 8 connections send a pipeline again and again, and returns the commands that were answered per second.
func mixedLoad(t *testing.T, p *instance, pipeline [][]string, d time.Duration) float64 {
	t.Helper()
	var out strings.Builder
	for _, command := range pipeline {
		out.WriteString(array(command...))
	}
	var wg sync.WaitGroup
	var total atomic.Int64
	begun := time.Now()
	for range 8 {
		conn, err := tls.Dial("tcp", p.addr, p.clientTLS())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close()
			conn.SetDeadline(begun.Add(d + 30*time.Second))
			for r := bufio.NewReader(conn); time.Since(begun) < d; total.Add(int64(len(pipeline))) {
				if _, err := io.WriteString(conn, out.String()); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				for _, command := range pipeline {
					if reply, err := readReply(r); err != nil || strings.HasPrefix(reply, "-") {
						t.Errorf("%v: %q %v", command, reply, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return float64(total.Load()) / time.Since(begun).Seconds()
}

// TestMixedPipelinesAgainstPaired measures sessions whose commands want different connections:
//
//	E2E_MIXED=1 go test -run TestMixedPipelines -v ./cmd/dragontls
func TestMixedPipelinesAgainstPaired(t *testing.T) {
	if os.Getenv("E2E_MIXED") == "" {
		t.Skip("a measurement: set E2E_MIXED=1")
	}
	r := lockedRedis(t)
	r.observe("HSET", "h", "a", "1", "b", "2", "c", "3", "d", "4")
	r.observe("SET", "k", strings.Repeat("v", 64))
	paired, shared := serving(t, r.url(), "BACKEND_PASSWORD="+r.password).wantReady(), sharing(t, r)
	get, others := []string{"GET", "k"}, map[string][]string{
		"GET and EVAL": {"EVAL", "return redis.call('GET', KEYS[1])", "1", "k"}, "GET and HGETALL": {"HGETALL", "h"}, "GET alone": {"GET", "k"},
	}
	for name, other := range others {
		t.Run(name, func(t *testing.T) {
			pipeline := slices.Repeat([][]string{get, other}, 8)
			var ratios []float64
			for range 5 { // side by side, so that both have the same machine
				a, b := mixedLoad(t, paired, pipeline, time.Second), mixedLoad(t, shared, pipeline, time.Second)
				t.Logf("paired %.0f/s, shared %.0f/s", a, b)
				ratios = append(ratios, b/a)
			}
			slices.Sort(ratios)
			t.Logf("pipeline of 16, %s: shared has %.2f of paired's throughput (%.2f .. %.2f)", name, ratios[2], ratios[0], ratios[4])
			if ratios[2] < 0.5 {
				t.Errorf("got %.2f, want 0.5 at least", ratios[2])
			}
		})
	}
}
