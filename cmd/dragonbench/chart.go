package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"strings"
)

// chart is a row of horizontal bars, one for each peer.
type chart struct {
	title, subtitle string
	bars            []bar
}

// bar is made of parts, one after the other; dragontls' own stand out.
type bar struct {
	label, text string
	parts       []float64 // first full, then pale
	low, high   float64   // the whisker; there is none if they are equal
	own         bool
}

// Measures of a chart, in pixels.
const (
	chartWidth  = 720
	labelWidth  = 130
	textWidth   = 150
	barHeight   = 18
	barGap      = 8
	chartHeader = 44
)

// chartStyle serves light and dark; the colours differ in lightness too, so that they differ in print.
const chartStyle = `.chart text{font:13px system-ui,sans-serif;fill:#1f2328}.chart .title{font-weight:600;font-size:14px}` +
	`.chart .sub{fill:#59636e;font-size:12px}.chart .own{fill:#0b6e8a}.chart .own.pale{fill:#7cc0d2}` +
	`.chart .other{fill:#6e7781}.chart .other.pale{fill:#bcc3ca}.chart .whisker{stroke:#1f2328;stroke-width:1.5}.chart .halo{stroke:#fff;stroke-width:4}` +
	`@media (prefers-color-scheme:dark){.chart text{fill:#e6edf3}.chart .sub{fill:#9198a1}.chart .own{fill:#3fb6d3}` +
	`.chart .own.pale{fill:#1d5f70}.chart .other{fill:#8b949e}.chart .other.pale{fill:#444c56}.chart .whisker{stroke:#e6edf3}.chart .halo{stroke:#0d1117}}`

func (c chart) height() int { return chartHeader + len(c.bars)*(barHeight+barGap) + barGap }

// svg draws the chart at the top left of a group.
func (c chart) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<text class="title" x="0" y="16">%s</text><text class="sub" x="0" y="34">%s</text>`, escape(c.title), escape(c.subtitle))
	longest := 0.0
	for _, one := range c.bars {
		longest = max(longest, one.high, one.total())
	}
	scale := 0.0
	if longest > 0 {
		scale = (chartWidth - labelWidth - textWidth) / longest
	}
	for n, one := range c.bars {
		y := chartHeader + n*(barHeight+barGap)
		one.draw(&b, y, scale)
	}
	return b.String()
}

func (b bar) total() (sum float64) {
	for _, p := range b.parts {
		sum += p
	}
	return sum
}

func (b bar) draw(w *strings.Builder, y int, scale float64) {
	class := "other"
	if b.own {
		class = "own"
	}
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+14, escape(b.label))
	x := float64(labelWidth)
	for n, part := range b.parts {
		pale := ""
		if n > 0 {
			pale = " pale"
		}
		fmt.Fprintf(w, `<rect class="%s%s" x="%.1f" y="%d" width="%.1f" height="%d"/>`, class, pale, x, y, part*scale, barHeight)
		x += part * scale
	}
	middle := float64(y) + barHeight/2
	if b.high > b.low {
		from, to := labelWidth+b.low*scale, labelWidth+b.high*scale
		for _, class := range []string{"halo", "whisker"} { // the halo sets it off from the bar
			fmt.Fprintf(w, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, from, middle, to, middle)
		}
		x = math.Max(x, to)
	}
	fmt.Fprintf(w, `<text x="%.1f" y="%d">%s</text>`, x+6, y+14, escape(b.text))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}

// drawing puts charts below each other. A drawing that stands alone brings its style and a ground.
func drawing(charts []chart, alone bool) string {
	var b strings.Builder
	y := 0
	for _, c := range charts {
		fmt.Fprintf(&b, `<g transform="translate(0 %d)">%s</g>`, y, c.svg())
		y += c.height()
	}
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`,
		chartWidth, y, chartWidth, y)
	if alone {
		head += "<style>" + chartStyle + "</style>"
	}
	return head + b.String() + "</svg>"
}

// charts are those of a row: its figure, and where measured latency, CPU and memory.
func (rep *backendReport) charts(r *row) (all []chart) {
	f := r.figure()
	main := chart{title: r.Title, subtitle: f.name + better(f.fewer) + "; line: lowest to highest round"}
	latency := chart{title: "Latency", subtitle: "full: p50, pale: up to p99; less is better"}
	cpu := chart{title: "CPU per command or connection", subtitle: "full: proxy, pale: backend; less is better"}
	memory := chart{title: "Memory", subtitle: "Pss, full: proxy, pale: backend; less is better"}
	for _, res := range rep.of(r.ID) {
		if len(res.Samples) == 0 {
			continue
		}
		b := bar{label: res.Peer, own: isOwn(res.Peer) && !strings.HasPrefix(res.Peer, oldPrefix)}
		s := res.of(f.metric)
		main.add(b, f.show(s.Median), s.Median)
		main.bars[len(main.bars)-1].low, main.bars[len(main.bars)-1].high = s.Min, s.Max
		if half, most := res.of(p50).Median, res.of(p99).Median; most > 0 {
			latency.add(b, showMicros(half)+", "+showMicros(most), half, most-half)
		}
		if p, back := res.of(proxyCPU).Median, res.of(backendCPU).Median; p+back > 0 {
			cpu.add(b, sum(p, back, "us"), p, back)
		}
		if p, back := res.of(peakPss).Max, res.of(backendPss).Max; p+back > 0 && r.work.Kind != idle {
			memory.add(b, sum(p/(1<<20), back/(1<<20), "MiB"), p, back)
		}
	}
	for _, c := range []chart{main, latency, cpu, memory} {
		if len(c.bars) > 0 {
			all = append(all, c)
		}
	}
	return all
}

// sum names both parts, where there is a proxy.
func sum(proxy, backend float64, unit string) string {
	if proxy == 0 {
		return fmt.Sprintf("%.1f %s", backend, unit)
	}
	return fmt.Sprintf("%.1f + %.1f %s", proxy, backend, unit)
}

func better(fewer bool) string {
	if fewer {
		return "; less is better"
	}
	return "; more is better"
}

func (c *chart) add(b bar, text string, parts ...float64) {
	for n := range parts {
		parts[n] = max(0, parts[n])
	}
	b.text, b.parts = text, parts
	c.bars = append(c.bars, b)
}

// writeSVG writes the first chart of each row into one file.
func (rep *report) writeSVG(path string) error {
	const most = 6 // more would be too long for a page
	var all []chart
	for _, b := range rep.Backends {
		for n := range b.Rows {
			charts := b.charts(&b.Rows[n])
			if len(charts) == 0 || len(all) == most {
				continue
			}
			if len(rep.Backends) > 1 {
				charts[0].subtitle += "; backend: " + b.Name
			}
			all = append(all, charts[0])
		}
	}
	return os.WriteFile(path, []byte(drawing(all, true)+"\n"), 0o644)
}
