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
