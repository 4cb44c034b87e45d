package statuspage

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The size of a chart in its own units; the page stretches it.
const (
	chartWidth  = 300
	chartHeight = 60
)

// chart is one small diagram of the last 15 minutes.
type chart struct {
	Title string
	Most  string // the value at the top
	Lines []line
}

// line is one line of a chart. Its Path is data for an SVG path element.
type line struct {
	Name  string // empty, if it is the only one
	Now   string // the newest value, in words
	Class string // line1, line2, ...: each has a colour
	Path  string
	Area  string // the same, closed at the bottom
}

// values are those of one line, the newest last. NaN is a gap.
type values struct {
	name string
	all  []float64
}

// newChart draws lines of at most maxSamples values. show words a value.
func newChart(title string, show func(float64) string, lines ...values) chart {
	most := 0.0
	for _, l := range lines {
		for _, v := range l.all {
			if v > most { // not for NaN
				most = v
			}
		}
	}
	top := ceiling(most)
	c := chart{Title: title, Most: show(top)}
	for i, l := range lines {
		one := line{Name: l.name, Now: "–", Class: "line" + strconv.Itoa(i+1)}
		one.Path, one.Area = draw(l.all, top)
		if n := len(l.all); n > 0 && !math.IsNaN(l.all[n-1]) {
			one.Now = show(l.all[n-1])
		}
		c.Lines = append(c.Lines, one)
	}
	return c
}

// ceiling returns the next of 1, 2 or 5 times a power of ten, and at least that of a tiny value.
func ceiling(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if v <= f*unit {
			return f * unit
		}
	}
	return 10 * unit
}

// draw returns the path of a line whose last value is at the right edge, and the area below it.
func draw(all []float64, top float64) (path, area string) {
	var p, a strings.Builder
	step := float64(chartWidth) / float64(maxSamples-1)
	began := -1.0 // where the piece began that is being drawn; negative: none is
	x := 0.0
	for i, v := range all {
		at := float64(chartWidth) - step*float64(len(all)-1-i)
		if math.IsNaN(v) {
			if began >= 0 {
				fmt.Fprintf(&a, "L%.1f %d L%.1f %dZ", x, chartHeight, began, chartHeight)
			}
			began = -1
			continue
		}
		command := "L"
		if began < 0 {
			command, began = "M", max(0, at)
		}
		x = max(0, at)
		fmt.Fprintf(&p, "%s%.1f %.1f", command, x, chartHeight*(1-v/top))
		fmt.Fprintf(&a, "%s%.1f %.1f", command, x, chartHeight*(1-v/top))
	}
	if began >= 0 {
		fmt.Fprintf(&a, "L%.1f %d L%.1f %dZ", x, chartHeight, began, chartHeight)
	}
	return p.String(), a.String()
}

// charts draws the samples.
func charts(s *Series) []chart {
	open := make([]float64, len(s.Connections))
	for i, n := range s.Connections {
		open[i] = float64(n)
	}
	all := []chart{
		newChart("Connections", count, values{"", open}),
		newChart("Commands a second", count, values{"", s.Commands}),
		newChart("Handshakes a second", count, values{"done", s.Handshakes}, values{"refused", s.Refused}),
	}
	var slow []values
	for _, path := range slices.Sorted(maps.Keys(s.P99)) {
		v := values{name: path}
		for _, p99 := range s.P99[path] {
			if p99 == nil {
				v.all = append(v.all, math.NaN())
			} else {
				v.all = append(v.all, *p99)
			}
		}
		slow = append(slow, v)
	}
	return append(all, newChart("p99 of a command", seconds, slow...))
}

// count words a number of things, or of things a second.
func count(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 1, 64) + " M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'f', 1, 64) + " k"
	case v >= 10 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

// seconds words a short time.
func seconds(v float64) string {
	for _, unit := range []struct {
		of   float64
		name string
	}{{1, " s"}, {1e-3, " ms"}} {
		if v >= unit.of {
			return strconv.FormatFloat(v/unit.of, 'g', 3, 64) + unit.name
		}
	}
	return strconv.FormatFloat(v*1e6, 'f', 0, 64) + " µs"
}

// bytes words a number of bytes.
func bytes(v float64) string {
	for _, unit := range []struct {
		of   float64
		name string
	}{{1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}} {
		if v >= unit.of {
			return strconv.FormatFloat(v/unit.of, 'f', 1, 64) + unit.name
		}
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + " B"
}

// roughly words a length of time in its two greatest units.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(0, d)
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d d %d h", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// bar is a horizontal bar. Width is out of 100; Class is its colour.
type bar struct {
	Width int
	Class string
}

// lifeBar shows how much is left of a validity.
func lifeBar(now, from, to time.Time) bar {
	left, all := to.Sub(now), max(to.Sub(from), time.Second)
	b := bar{Width: max(0, min(100, int(100*left.Seconds()/all.Seconds()))), Class: "good"}
	switch SeverityOfEnd(now, from, to) {
	case SeverityError:
		b.Class = "bad"
	case SeverityWarning, SeverityNote:
		b.Class = "fair"
	}
	return b
}

// limitBar shows how full a limit is.
func limitBar(l Limit) bar {
	b := bar{Width: int(100 * max(0, l.Share())), Class: "good"}
	switch {
	case l.Share() >= 1:
		b.Class = "bad"
	case l.Share() > NearLimit:
		b.Class = "fair"
	}
	return b
}

// NearLimit is the share of a limit from which on somebody should look.
const NearLimit = .8

// SeverityOfEnd says how grave it is that something ends that is valid from one time to another, as the alerts do; empty: not at all.
func SeverityOfEnd(now, from, to time.Time) string {
	const day = 24 * time.Hour
	left, all := to.Sub(now), to.Sub(from)
	switch {
	case left < 3*day && left < all/10:
		return SeverityError
	case left < 14*day && left < all/5:
		return SeverityWarning
	case left < 30*day && left < all/3:
		return SeverityNote
	}
	return ""
}
