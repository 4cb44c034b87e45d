package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// sample is one measurement of a row on a peer. Zero: not measured.
type sample struct {
	Rate       float64        `json:"rate,omitempty"` // commands or connections a second
	P50        float64        `json:"p50_us,omitempty"`
	P99        float64        `json:"p99_us,omitempty"`
	P999       float64        `json:"p999_us,omitempty"`
	Max        float64        `json:"max_us,omitempty"`
	ProxyCPU   float64        `json:"proxy_cpu_us,omitempty"` // CPU time per command or connection
	BackendCPU float64        `json:"backend_cpu_us,omitempty"`
	LoadCPU    float64        `json:"load_cpu_us,omitempty"`
	ProxyPss   int64          `json:"proxy_pss_bytes,omitempty"` // with all connections open
	BackendPss int64          `json:"backend_pss_bytes,omitempty"`
	IdlePss    int64          `json:"idle_pss_bytes,omitempty"`       // of the proxy, before the load
	PerConn    float64        `json:"per_connection_bytes,omitempty"` // memory row
	Calm       float64        `json:"calm_rate,omitempty"`            // storm: rate without rotations
	CalmP99    float64        `json:"calm_p99_us,omitempty"`          // laggards: p99 without them
	PeakRSS    int64          `json:"proxy_peak_rss_bytes,omitempty"` // laggards: since its start
	Slow       int64          `json:"slow_commands,omitempty"`        // slow one: those answered
	Closed     int64          `json:"laggards_closed,omitempty"`
	Handshakes float64        `json:"handshakes,omitempty"` // storm: a second
	Rotations  int            `json:"rotations,omitempty"`
	Leaves     int            `json:"certificates_seen,omitempty"`
	FirstReply float64        `json:"first_reply_ms,omitempty"` // restart
	Unanswered int            `json:"unanswered,omitempty"`
	Errors     map[string]int `json:"errors,omitempty"`
	Session    string         `json:"session,omitempty"`    // version, cipher and key exchange that were agreed on
	OthersCPU  float64        `json:"others_cpu,omitempty"` // share of the machine used by processes that are none of ours
	Steal      float64        `json:"steal,omitempty"`      // share of the time taken by the hypervisor
}

// result is all samples of a row on a peer.
type result struct {
	Row        string   `json:"row"`
	Peer       string   `json:"peer"`
	Samples    []sample `json:"samples"`
	Unmeasured string   `json:"unmeasured,omitempty"` // why there are none, or fewer than rounds
}

// errors sums up what went wrong.
func (r *result) errors() map[string]int {
	all := map[string]int{}
	for _, s := range r.Samples {
		for kind, n := range s.Errors {
			all[kind] += n
		}
	}
	return all
}

// hooks are called when the generator says so.
type hooks struct {
	start, stop func(window int)
	// killed is for an outage: it does the damage and returns.
	killed func() error
}

// runLoad runs the generator in a process of its own and returns what it saw in each window.
func (r *rig) runLoad(ctx context.Context, w work, h hooks) (windows []window, group int, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	cmd := exec.Command(self, loadCommand)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, 0, err
	}
	defer in.Close()
	// Not StdoutPipe: the keeper waits for the process while we still read.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	defer read.Close()
	cmd.Stdout = write
	p, err := r.keeper.startAs(true, cmd)
	write.Close()
	if err != nil {
		return nil, 0, err
	}
	defer p.stop()
	defer context.AfterFunc(ctx, p.stop)()
	if err := json.NewEncoder(in).Encode(w); err != nil {
		return nil, 0, fmt.Errorf("start load: %w", err)
	}
	expected := max(1, len(w.Windows))
	for events := bufio.NewScanner(read); len(windows) < expected && events.Scan(); {
		var e event
		if err := json.Unmarshal(events.Bytes(), &e); err != nil {
			return nil, 0, fmt.Errorf("load: %w", err)
		}
		switch e.Event {
		case "error":
			return nil, 0, errors.New(e.Error)
		case "start":
			if h.start != nil {
				h.start(len(windows))
			}
			if h.killed != nil {
				if err := h.killed(); err != nil {
					return nil, 0, err
				}
				fmt.Fprintln(in)
			}
		case "stop":
			if h.stop != nil {
				h.stop(len(windows))
			}
			windows = append(windows, *e.Window)
			fmt.Fprintln(in)
		}
	}
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	if len(windows) < expected {
		return nil, 0, fmt.Errorf("load ended early: %s", p.tail())
	}
	return windows, p.group, nil
}

// fromWindow takes over what the generator saw.
func fromWindow(w window) sample {
	return sample{
		Rate: float64(w.Count) / w.Seconds, P50: w.P50, P99: w.P99, P999: w.P999, Max: w.Max,
		Handshakes: float64(w.Handshakes) / w.Seconds, Leaves: w.Leaves, Unanswered: w.Unanswered, Slow: w.Slow, Closed: w.Closed,
		Errors: w.Errors, Session: w.Session,
	}
}

// addCPU divides what each group used between two moments by what was done.
func (s *sample) addCPU(before, after cpuTimes, i *instance, load int, ours []int, count int64) {
	used := func(group int) time.Duration { return after.groups[group] - before.groups[group] }
	per := func(d time.Duration) float64 {
		if count == 0 {
			return 0
		}
		return float64(d.Microseconds()) / float64(count)
	}
	proxy, backend := i.groups()
	if proxy != 0 {
		s.ProxyCPU = per(used(proxy))
	}
	s.BackendCPU, s.LoadCPU = per(used(backend)), per(used(load))
	others := after.busy - before.busy - (after.self - before.self)
	for _, group := range ours {
		others -= used(group)
	}
	capacity := float64(after.at.Sub(before.at)) * float64(cpuCount())
	s.OthersCPU = max(0, float64(others)/capacity)
	s.Steal = float64(after.steal-before.steal) / capacity
}
