package main

import "slices"

// spread is the median of some rounds with the lowest and the highest.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns zeros for no values.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	s := spread{Median: sorted[middle], Min: sorted[0], Max: sorted[len(sorted)-1]}
	if len(sorted)%2 == 0 {
		s.Median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return s
}

// metric picks one figure of a sample.
type metric func(sample) float64

func rate(s sample) float64       { return s.Rate }
func p50(s sample) float64        { return s.P50 }
func p99(s sample) float64        { return s.P99 }
func p999(s sample) float64       { return s.P999 }
func longest(s sample) float64    { return s.Max }
func peakRSS(s sample) float64    { return float64(s.PeakRSS) }
func calmP99(s sample) float64    { return s.CalmP99 }
func proxyCPU(s sample) float64   { return s.ProxyCPU }
func backendCPU(s sample) float64 { return s.BackendCPU }
func loadCPU(s sample) float64    { return s.LoadCPU }
func perConn(s sample) float64    { return s.PerConn }
func firstReply(s sample) float64 { return s.FirstReply }
func peakPss(s sample) float64    { return float64(s.ProxyPss) }
func backendPss(s sample) float64 { return float64(s.BackendPss) }
func stormRatio(s sample) float64 {
	if s.Calm == 0 {
		return 0
	}
	return s.Rate / s.Calm
}

// cpusInUse is how many CPUs proxy, backend and client used together.
func cpusInUse(s sample) float64 { return s.Rate * (s.ProxyCPU + s.BackendCPU + s.LoadCPU) / 1e6 }

// p99Ratio is how many times the p99 without laggards theirs is.
func p99Ratio(s sample) float64 {
	if s.CalmP99 == 0 {
		return 0
	}
	return s.P99 / s.CalmP99
}

// of is the spread of a metric over the rounds.
func (r *result) of(m metric) spread {
	var values []float64
	for _, s := range r.Samples {
		values = append(values, m(s))
	}
	return spreadOf(values)
}

// ratio compares round with round, since two samples of one round have the machine's mood in common.
func ratio(a, b *result, m metric) spread {
	var values []float64
	for i := range min(len(a.Samples), len(b.Samples)) {
		if under := m(b.Samples[i]); under > 0 {
			values = append(values, m(a.Samples[i])/under)
		}
	}
	return spreadOf(values)
}
