package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const redisBenchmarkCure = "apt-get install redis-tools"

// findRedisBenchmark wants one that speaks TLS.
func (r *rig) findRedisBenchmark(ctx context.Context) (string, error) {
	path, err := lookPath("redis-benchmark")
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, redisBenchmarkCure)
	}
	out, _ := r.keeper.output(ctx, exec.Command(path, "--help")) // it exits with 1 or 0, depending on its version
	if !strings.Contains(out, "--tls") {
		return "", errors.New("this redis-benchmark is built without TLS\n" + redisBenchmarkCure)
	}
	return path, nil
}

// byRedisBenchmark is what the name of a peer ends with where redis-benchmark measured it.
const byRedisBenchmark = ", by redis-benchmark"

// redisBenchmarkCan says whether redis-benchmark knows the work.
func (r *row) redisBenchmarkCan() bool {
	return r.work.Kind == closedLoop && r.work.Command != mixedCommand
}

// measureRedisBenchmark is there to check our own generator. redis-benchmark counts commands, not seconds: a short run
// finds out how many fill a window. And its clock runs while it connects, which the difference of both runs leaves out.
// It has one thread, so that on a busy machine it gets less of it than our own; with --threads it burns CPU and counts in
// steps of 250 ms.
func (b *bench) measureRedisBenchmark(ctx context.Context, r *row, i *instance) (sample, error) {
	w := r.work
	fill := w
	fill.Command, fill.Connections, fill.Pipeline = getCommand, 1, 1
	fill.Address, fill.TLS = i.address, i.clientFiles()
	fill.Windows = []time.Duration{time.Millisecond}
	if _, _, err := b.rig.runLoad(ctx, fill, hooks{}); err != nil {
		return sample{}, err
	}
	few := max(2000, 20*w.Connections*w.Pipeline)
	short, err := b.redisBenchmarkRun(ctx, i, w, few)
	if err != nil {
		return sample{}, err
	}
	many := few + max(few, int(short.Rate*b.plan.seconds.Seconds()))
	long, err := b.redisBenchmarkRun(ctx, i, w, many)
	if err != nil {
		return sample{}, err
	}
	if rate := rateBetween(few, short.Rate, many, long.Rate); rate > 0 {
		long.Rate = rate
	}
	return long, nil
}

// rateBetween is the rate of what a run of many commands did beyond one of few; 0 if the longer one took no longer.
func rateBetween(few int, fewRate float64, many int, manyRate float64) float64 {
	seconds := float64(many)/manyRate - float64(few)/fewRate
	if seconds <= 0 {
		return 0
	}
	return float64(many-few) / seconds
}

func (b *bench) redisBenchmarkRun(ctx context.Context, i *instance, w work, n int) (sample, error) {
	host, port, _ := net.SplitHostPort(i.address)
	args := []string{"-h", host, "-p", port, "-c", strconv.Itoa(w.Connections), "-P", strconv.Itoa(w.Pipeline),
		"-n", strconv.Itoa(n), "-d", strconv.Itoa(w.Size), "-t", w.Command, "--csv"}
	if files := i.clientFiles(); files != nil {
		args = append(args, "--tls", "--cacert", files.CA, "--cert", files.ClientCert, "--key", files.ClientKey,
			"--tls-ciphersuites", cipherSuite)
	}
	cmd := exec.Command(b.redisBenchmark, args...)
	before := readCPU()
	out, err := b.rig.keeper.output(ctx, cmd)
	after := readCPU()
	if err != nil {
		return sample{}, fmt.Errorf("redis-benchmark: %w\n%s", err, out)
	}
	s, err := parseRedisBenchmark(out)
	if err != nil {
		return sample{}, err
	}
	s.addCPU(before, after, i, 0, b.rig.keeper.groups(), int64(n))
	s.LoadCPU = float64((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Microseconds()) / float64(n)
	s.OthersCPU = 0 // unknown: its own time is over before we look
	return s, nil
}

// parseRedisBenchmark reads what --csv prints: a header and a line. Times are in milliseconds.
func parseRedisBenchmark(out string) (sample, error) {
	start := strings.Index(out, `"test"`)
	if start < 0 {
		return sample{}, fmt.Errorf("redis-benchmark printed no figures:\n%s", out)
	}
	lines, err := csv.NewReader(strings.NewReader(out[start:])).ReadAll()
	if err != nil || len(lines) < 2 {
		return sample{}, fmt.Errorf("redis-benchmark printed no figures:\n%s", out)
	}
	figure := map[string]float64{}
	for n, name := range lines[0] {
		figure[name], _ = strconv.ParseFloat(lines[1][n], 64) // the name of the test is none
	}
	return sample{
		Rate: figure["rps"], P50: 1e3 * figure["p50_latency_ms"], P99: 1e3 * figure["p99_latency_ms"],
		Max: 1e3 * figure["max_latency_ms"],
	}, nil
}
