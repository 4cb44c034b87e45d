package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchProcess is a run of the real program in a directory of its own, with a temporary directory of its own.
type benchProcess struct {
	*exec.Cmd
	dir, tmp, mark string
	stdout         bytes.Buffer
}

func newBenchProcess(t *testing.T, args ...string) *benchProcess {
	t.Helper()
	need(t, "redis-server")
	// A short path: it holds sockets.
	tmp, err := os.MkdirTemp("", "b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	p := &benchProcess{Cmd: exec.Command(built(t, "dragonbench"), args...), dir: t.TempDir(), tmp: tmp}
	p.mark = "DRAGONBENCH_TEST=" + tmp
	p.Dir = p.dir
	p.Env = append(os.Environ(), "TMPDIR="+tmp, p.mark, "DRAGONTLS_BIN="+built(t, "dragontls"))
	p.Stdout = &p.stdout
	p.WaitDelay = time.Minute
	return p
}

// left is what the run has not cleaned up: processes that bear its mark, and files.
func (p *benchProcess) left(t *testing.T) (left []string) {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environs {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(p.mark)) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			left = append(left, path+" "+string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
		}
	}
	files, err := os.ReadDir(p.tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		left = append(left, f.Name())
	}
	return left
}

// wantNothingLeft waits, since the janitor of a killed run ends behind it.
func (p *benchProcess) wantNothingLeft(t *testing.T) {
	t.Helper()
	var left []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = p.left(t); len(left) == 0 {
			return
		}
	}
	t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
}

// What runs with nothing but Go and redis-server is measured; what is missing is said with its cure.
func TestRunWithNothingButGoAndRedis(t *testing.T) {
	p := newBenchProcess(t, "--only", "get-64B-c1-p1,handshake-full,paired,own TLS,ghostunnel,stunnel", "--seconds", "0.5", "--rounds", "2",
		"--json", "out.json", "--svg", "out.svg")
	path := t.TempDir()
	for _, tool := range []string{"go", "redis-server"} {
		full, err := exec.LookPath(tool)
		if err != nil {
			t.Skip(err)
		}
		if err := os.Symlink(full, filepath.Join(path, tool)); err != nil {
			t.Fatal(err)
		}
	}
	repository, err := os.Getwd() // to build dragontls from
	if err != nil {
		t.Fatal(err)
	}
	p.Dir = repository
	p.Env = append(p.Env, "PATH="+path, "DRAGONTLS_BIN=", "GHOSTUNNEL_BIN=", "GOFLAGS=-buildvcs=false -pgo=off")
	for n := range p.Args {
		if strings.HasPrefix(p.Args[n], "out.") {
			p.Args[n] = filepath.Join(p.dir, p.Args[n])
		}
	}
	p.Args = append(p.Args, "--html", filepath.Join(p.dir, "out.html"))
	var stderr bytes.Buffer
	p.Stderr = &stderr
	if err := p.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	for _, want := range []string{"ghostunnel: not measured: not installed", "go install github.com/ghostunnel",
		"stunnel: not measured: not installed", "apt-get install stunnel4", "GET 64 B, 1 connection", "not visible from outside"} {
		if !strings.Contains(p.stdout.String(), want) {
			t.Errorf("there is no %q in\n%s", want, &p.stdout)
		}
	}
	p.wantMeasured(t, "dragontls paired", "own TLS")
	for _, name := range []string{"out.json", "out.svg", "out.html"} {
		if err := os.Remove(filepath.Join(p.dir, name)); err != nil {
			t.Error(err)
		}
	}
	if files, err := os.ReadDir(p.dir); err != nil || len(files) > 0 {
		t.Errorf("more than reports: %v %v", files, err)
	}
	p.wantNothingLeft(t)
}

func (p *benchProcess) wantMeasured(t *testing.T, peers ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "out.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(b, &rep); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"get-64B-c1-p1", "handshake-full"} {
		for _, peer := range peers {
			r := find(rep.Backends[0].Results, row, peer)
			// One of the windows may be lost to others on a busy machine.
			if r == nil || len(r.Samples) != 2 || r.of(rate).Max <= 0 || len(r.errors()) > 0 || r.Unmeasured != "" {
				t.Errorf("%s, %s: got %+v", row, peer, r)
			}
		}
	}
}

// Rows that need more than one process to be seen: in front of two backends, with an old build beside the new one.
func TestRunInFrontOfTwoBackends(t *testing.T) {
	t.Parallel()
	rows := []string{"get-64B-c2-p1-distinct", "open-30", "handshake-full-burst-orderly", "slow-readers-distinct"}
	p := newBenchProcess(t, "--quick", "--seconds", "0.3", "--rounds", "1", "--backend", "redis-server,model",
		"--only", strings.Join(rows, ",")+",dragontls shared", "--json", "out.json")
	p.Env = append(p.Env, oldVariable+"="+built(t, "dragontls"))
	var stderr bytes.Buffer
	p.Stderr = &stderr
	if err := p.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "out.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	if err := json.Unmarshal(b, &rep); err != nil {
		t.Fatal(err)
	}
	if len(rep.Backends) != 2 || rep.Backends[0].Figures != figuresRedis || rep.Backends[1].Figures != figuresModel {
		t.Fatalf("got %d backends\n%s", len(rep.Backends), &p.stdout)
	}
	for _, one := range rep.Backends {
		for _, row := range rows {
			for _, peer := range []string{shared, oldShared} {
				r := find(one.Results, row, peer)
				// How much a busy machine does in a window is its own affair, but a burst has its size.
				if r == nil || len(r.Samples) != 1 || len(r.errors()) > 0 || r.Unmeasured != "" ||
					row == "handshake-full-burst-orderly" && r.Samples[0].Rate <= 0 {
					t.Errorf("%s, %s, %s: got %+v", one.Name, row, peer, r)
				}
			}
		}
		if r := find(one.Results, "slow-readers-distinct", shared); r != nil && len(r.Samples) == 1 {
			if s := r.Samples[0]; s.PeakRSS < 1<<20 {
				t.Errorf("%s: got %+v", one.Name, s)
			}
		}
	}
	for _, want := range []string{"backend: redis-server", "backend: model:", "one slow command a second: p99 of the others against dragontls paired",
		"throughput against old dragontls shared", "GET 64 B at 30 % of capacity, 50 connections: "} {
		if !strings.Contains(p.stdout.String(), want) {
			t.Errorf("there is no %q in\n%s", want, &p.stdout)
		}
	}
	p.wantNothingLeft(t)
}

// However and whenever a run is ended, no process and no file of it stays.
func TestNothingIsLeftBehind(t *testing.T) {
	for _, test := range []struct {
		when   string // a line on stderr
		signal syscall.Signal
		code   int // -1: none
	}{
		{"", syscall.SIGINT, 0}, // any: perhaps before it listens to signals
		{"looking for peers", syscall.SIGINT, exitInterrupted},
		{" rounds of ", syscall.SIGINT, exitInterrupted},
		{" left  get", syscall.SIGINT, exitInterrupted},
		{" left  memory", syscall.SIGINT, exitInterrupted},
		{" left  storm", syscall.SIGTERM, exitInterrupted},
		{"looking for peers", syscall.SIGKILL, -1},
		{" left  get", syscall.SIGKILL, -1},
	} {
		t.Run(fmt.Sprintf("%v at %q", test.signal, test.when), func(t *testing.T) {
			t.Parallel()
			p := newBenchProcess(t, "--only", "get-64B-c1-p1,memory-200,storm", "--seconds", "0.1", "--rounds", "1")
			stderr, err := p.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			var seen strings.Builder
			lines := bufio.NewScanner(stderr)
			for found := test.when == ""; !found && lines.Scan(); {
				seen.WriteString(lines.Text() + "\n")
				found = strings.Contains(lines.Text(), test.when)
			}
			if err := p.Process.Signal(test.signal); err != nil {
				t.Fatalf("%v; it said:\n%s", err, seen.String())
			}
			for lines.Scan() { // to its end, so that it is never blocked
			}
			err = p.Wait()
			var exit *exec.ExitError
			if test.when != "" && (!errors.As(err, &exit) || exit.ExitCode() != test.code) {
				t.Errorf("got %v, want exit code %d; it said:\n%s", err, test.code, seen.String())
			}
			p.wantNothingLeft(t)
		})
	}
}

func TestProcTellsOfOurselves(t *testing.T) {
	if err := supported(); err != nil {
		t.Skip(err)
	}
	before := readCPU()
	for readCPU().self-before.self < 50*time.Millisecond { // burn
	}
	if after := readCPU(); after.busy <= before.busy {
		t.Errorf("50 ms of CPU changed nothing: %v %v", before.busy, after.busy)
	}
	// Our own group holds whatever go test runs beside us: what ends there takes its time along.
	burner := exec.Command("sh", "-c", "while :; do :; done")
	burner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := burner.Start(); err != nil {
		t.Fatal(err)
	}
	defer burner.Wait()
	defer burner.Process.Kill()
	for end := time.Now().Add(time.Minute); readCPU().groups[burner.Process.Pid] < 50*time.Millisecond; {
		if time.Now().After(end) {
			t.Fatal("a group that burns CPU has no time")
		}
	}
	if got := groupPss(syscall.Getpgrp()); got < 1<<20 {
		t.Errorf("got a Pss of %d bytes", got)
	}
	if m := thisMachine(); m.CPUs < 1 || m.Kernel == "" || m.Memory < 1<<20 {
		t.Errorf("got %+v", m)
	}
}
