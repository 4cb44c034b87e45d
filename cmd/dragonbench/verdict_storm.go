package main

import (
	"fmt"
	"strings"
)

const (
	stormRotations  = 1000
	stormHandshakes = 200
	stormShare      = 0.97
)

func judgeStorm(rep *backendReport) verdict {
	v := verdict{Backend: rep.Figures, Work: "1,000 reloads under load and 200 new handshakes a second", Outcome: notMeasurable,
		Wanted: "0 errors, throughput >= 0.97 of none"}
	subject := goal{}.subject(rep)
	r, why := rep.measured("storm", subject)
	if r == nil {
		v.Detail = why
		return v
	}
	rotations, leaves := 0, 0
	for _, s := range r.Samples {
		rotations += s.Rotations
		leaves += s.Leaves
	}
	share := r.of(stormRatio)
	greeted := r.of(func(s sample) float64 { return s.Handshakes })
	var faults []string
	if e := r.errors(); len(e) > 0 {
		faults = append(faults, "errors: "+showErrors(e))
	}
	if share.Median < stormShare {
		faults = append(faults, "throughput fell")
	}
	if leaves < 2 {
		faults = append(faults, "no new certificate was seen")
	}
	v.Outcome = reached
	if len(faults) > 0 {
		v.Outcome = missed
	}
	if greeted.Median < stormHandshakes {
		faults = append(faults, "the machine did not make 200 handshakes a second")
		if v.Outcome == reached {
			v.Outcome = notMeasurable
		}
	}
	if rotations < stormRotations {
		faults = append(faults, "a shorter storm than wanted")
		if v.Outcome == reached {
			v.Outcome = notMeasurable
		}
	}
	v.Detail = fmt.Sprintf("%s: %d rotations, %d certificates seen, %.0f handshakes/s, throughput %s of none",
		subject, rotations, leaves, greeted.Median, showSpread(share, ""))
	if len(faults) > 0 {
		v.Detail += "; " + strings.Join(faults, ", ")
	}
	return v
}
