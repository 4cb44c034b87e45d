package main

import "dragontls/proxy"

// collectLimits emits how full each limit is and how often it was reached.
func collectLimits(m metrics, all []proxy.Limit) {
	for _, l := range all {
		of := label("of", l.Of)
		m.counter("limit_reached_total", "How often a limit was reached.", l.Reached, of)
		if l.Value > 0 { // without a limit, or with an unknown one, there is nothing to compare with
			m.gauge("limit", "The value of a limit.", float64(l.Value), of)
		}
		if l.Used >= 0 {
			m.gauge("limit_used", "How much of a limit is in use; of a limit for each client, by the one that uses most.", float64(l.Used), of)
		}
	}
}

// statusLimit is what /status.json says of a limit.
type statusLimit struct {
	Of   string `json:"of"`
	Name string `json:"name"`
	// Value is absent without a limit, or where it is not known; so is Used where it is not known.
	Value   *int64 `json:"value,omitempty"`
	Used    *int64 `json:"used,omitempty"`
	Reached uint64 `json:"reached"`
}

func statusLimits(all []proxy.Limit) []statusLimit {
	out := make([]statusLimit, len(all))
	for i := range all {
		l := &all[i]
		out[i] = statusLimit{Of: l.Of, Name: l.Name, Reached: l.Reached}
		if l.Value > 0 {
			out[i].Value = &l.Value
		}
		if l.Used >= 0 {
			out[i].Used = &l.Used
		}
	}
	return out
}
