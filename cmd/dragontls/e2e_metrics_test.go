//go:build unix

package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// sample is one line of /metrics.
type sample struct {
	name   string // without the prefix
	labels map[string]string
	value  float64
}

type samples []sample

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)`)
)

// metrics scrapes, and fails on what Prometheus would refuse.
func (p *instance) metrics() samples {
	p.t.Helper()
	code, body := p.get("/metrics")
	if code != http.StatusOK {
		p.t.Fatalf("/metrics: %d %s", code, body)
	}
	var all samples
	types, seen, last := map[string]string{}, map[string]bool{}, ""
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if types[name] != "" {
				p.t.Errorf("two types of %s", name)
			}
			types[name], last = kind, name
			continue
		}
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			p.t.Fatalf("no sample: %s", line)
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil || labelPair.ReplaceAllString(m[2], "") != "" {
			p.t.Errorf("malformed: %s", line)
		}
		if !strings.HasPrefix(m[1], last) || types[last] == "" {
			p.t.Errorf("%s stands below the type of %q", m[1], last)
		}
		if series := m[1] + m[2]; seen[series] {
			p.t.Errorf("twice: %s", series)
		} else {
			seen[series] = true
		}
		if types[last] == "counter" && (value < 0 || strings.HasPrefix(m[1], "dragontls_") && !strings.HasSuffix(m[1], "_total")) {
			p.t.Errorf("no counter: %s", line)
		}
		s := sample{name: strings.TrimPrefix(m[1], "dragontls_"), labels: map[string]string{}, value: value}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			s.labels[l[1]] = l[2]
		}
		all = append(all, s)
	}
	return all
}

// sum adds up the samples of a name that have all those labels, given as name and value in turn.
func (s samples) sum(name string, labels ...string) float64 {
	total := 0.0
next:
	for _, one := range s {
		if one.name != name {
			continue
		}
		for i := 0; i < len(labels); i += 2 {
			if one.labels[labels[i]] != labels[i+1] {
				continue next
			}
		}
		total += one.value
	}
	return total
}

// wantMetric waits until the samples of a name that have all those labels add up to want. What a client sees of the end of
// a session or a handshake is no proof that it has been counted: the proxy may count it a moment later.
func (p *instance) wantMetric(want float64, name string, labels ...string) {
	p.t.Helper()
	p.wantMetricThat(fmt.Sprint(want), func(got float64) bool { return got == want }, name, labels...)
}

// wantAtLeast is wantMetric for events that may happen more often than the test makes them happen.
func (p *instance) wantAtLeast(want float64, name string, labels ...string) {
	p.t.Helper()
	p.wantMetricThat(fmt.Sprint(want, " or more"), func(got float64) bool { return got >= want }, name, labels...)
}

func (p *instance) wantMetricThat(want string, holds func(float64) bool, name string, labels ...string) {
	p.t.Helper()
	var got float64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = p.metrics().sum(name, labels...); holds(got) {
			return
		}
	}
	p.t.Errorf("%s %v: got %v, want %s", name, labels, got, want)
}

func (s samples) has(name string) bool {
	for _, one := range s {
		if one.name == name {
			return true
		}
	}
	return false
}
