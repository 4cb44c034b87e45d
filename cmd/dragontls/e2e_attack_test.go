//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"dragontls/certs/pki"
)

// An attack may slow the median of honest clients by this factor, and the process may take this much memory.
const (
	maxSlowdown    = 3
	attackedMemory = 128 // MiB, MEMORY_LIMIT
	maxAttackedRSS = 1.3*attackedMemory + 32
)

// BenchmarkUnderAttack measures what honest clients notice of each attack. A round is a quiet phase and then a phase under
// attack; honest clients do the same work in both. The attackers are another process that keeps a pace, so that the figures
// tell about the proxy and not about a starved load generator. On a busy machine it needs several rounds:
//
//	go test ./cmd/dragontls -run '^$' -bench UnderAttack -benchtime 5x -timeout 1h
//
// It fails if an honest client fails or gets a wrong answer, if the median is above maxSlowdown, or if the process grows above
// maxAttackedRSS. TEST_SEED repeats what the attackers send.
func BenchmarkUnderAttack(b *testing.B) {
	for _, a := range attacks {
		for _, mode := range backendModes {
			if a.sharedOnly && mode != "shared" {
				continue
			}
			b.Run(a.name+"/"+mode, func(b *testing.B) { underAttack(b, a, mode) })
		}
	}
}

func underAttack(b *testing.B, a attack, mode string) {
	seed := envInt(b, "TEST_SEED", os.Getpid())
	backend := redisServer(b)
	wantTool(b, strings.Repeat("x", greedyValue), "redis-cli", "-s", backend.socket, "-x", "SET", greedyKey)
	p := serving(b, backend.url(), "BACKEND_MODE="+mode, fmt.Sprintf("MEMORY_LIMIT=%dmb", attackedMemory), "LOG_LEVEL=info").wantReady()
	if err := pki.Client(p.file("."), attackerName); err != nil {
		b.Fatal(err)
	}
	f := findings{seed: seed}
	v := newVictims(p, a.protocol)
	v.during(&figures{}) // the first handshakes and lanes
	for b.Loop() {
		v.during(&f.quiet)
		p.forgetPeak()
		band := p.attackers(a.name, seed)
		v.during(&f.attacked)
		f.peak = max(f.peak, p.memory("VmHWM"))
		f.acts += band.end()
		eventually(b, "the attackers' sessions are gone", func() bool { return p.metrics().sum("connections", "state", "open") <= honestSessions })
		seed++
	}
	if metric := a.mark; metric != nil && p.metrics().sum(metric[0], metric[1:]...) == 0 {
		b.Errorf("the attack left no mark: %v is 0", metric)
	}
	v.stop()
	p.wantEnd()
	f.report(b, v)
}

// findings are what all rounds of one attack showed.
type findings struct {
	seed            int // of the first round; each later round has the next one
	quiet, attacked figures
	peak            float64 // MiB
	acts            int
}

func (f *findings) report(b *testing.B, v *victims) {
	var all []string // a benchmark that fails prints no metrics
	metric := func(value float64, unit string) {
		b.ReportMetric(value, unit)
		all = append(all, fmt.Sprintf("%.4g %s", value, unit))
	}
	b.ReportMetric(0, "ns/op")
	for _, kind := range victimKinds {
		if len(f.attacked.took[kind]) == 0 {
			b.Errorf("no %s got through under attack", kind)
			continue
		}
		quiet, attacked := median(f.quiet.took[kind]), median(f.attacked.took[kind])
		metric(quiet, kind+"-quiet-us")
		metric(attacked, kind+"-attack-us")
		metric(attacked/quiet, kind+"-ratio")
		if attacked/quiet > maxSlowdown {
			b.Errorf("%s takes %.1f times as long under attack, want at most %d", kind, attacked/quiet, maxSlowdown)
		}
	}
	metric(f.peak, "rss-MiB")
	metric(maxAttackedRSS, "rss-limit-MiB")
	metric(float64(f.acts)/float64(b.N), "acts/op")
	metric(float64(v.failures), "failures")
	if f.peak > maxAttackedRSS {
		b.Errorf("%.0f MiB, want at most %.0f", f.peak, maxAttackedRSS)
	}
	if v.failures > 0 {
		b.Errorf("%d times an honest client failed; the first: %v", v.failures, v.firstFail)
	}
	if b.Failed() {
		b.Logf("TEST_SEED=%d: %s", f.seed, strings.Join(all, ", "))
	}
}

// band is the process that attacks.
type band struct {
	*process
	stdin io.Closer
}

// attackers starts the process of an attack, and returns when the attack is under way.
func (p *instance) attackers(name string, seed int) *band {
	p.t.Helper()
	orders, err := json.Marshal(orders{Attack: name, Address: p.addr, Dir: p.dir, Seed: uint64(seed)})
	if err != nil {
		p.t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(environ(), attackVariable+"="+string(orders))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	b := &band{process: launch(p.t, cmd), stdin: stdin}
	eventually(p.t, "the attack is under way", func() bool {
		if !b.running() {
			p.t.Fatalf("the attackers ended early:\n%s", &b.stderr)
		}
		return strings.Contains(b.stdout.String(), attackBegan)
	})
	return b
}

// end ends the attack and returns how often the attackers did what they do.
func (b *band) end() (acts int) {
	b.t.Helper()
	b.stdin.Close()
	b.wantExit(0)
	if _, err := fmt.Sscanf(b.stdout.String(), attackBegan+"%d acts", &acts); err != nil || acts == 0 {
		b.t.Fatalf("%d acts, %v: %s", acts, err, &b.stderr)
	}
	return acts
}
