package proxy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkHonestUnderAttack prints the median time of a PING of one identity, while all is quiet and while another one
// asks for more than it reads with 60 sessions.
func BenchmarkHonestUnderAttack(b *testing.B) {
	for _, m := range []mode{{name: "shared", shared: true}, {name: "paired"}} {
		for _, attacked := range []bool{false, true} {
			name := m.name + "/quiet"
			if attacked {
				name = m.name + "/attack"
			}
			b.Run(name, func(b *testing.B) {
				h := m.start(b, memoryBackend(b, 200<<10), func(c *Config) { c.BufferLimit = 80 << 20; twoIdentities(c) })
				honest := h.dial()
				honest.do("+PONG\r\n", "PING")
				if attacked {
					greed(h, 60, func(w *wire) { w.push(strings.Repeat(cmd("GET", "k"), 400)) })
				}
				took := make([]time.Duration, 0, b.N)
				for b.Loop() {
					begun := time.Now()
					honest.do("+PONG\r\n", "PING")
					took = append(took, time.Since(begun))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "ns-p50")
			})
		}
	}
}
