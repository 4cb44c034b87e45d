package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fullReport has every kind of row, a peer with a hostile name, and one that failed.
func fullReport() *report {
	one := &backendReport{
		Name: "redis-server 7", Figures: figuresRedis,
		Peers:   []peerReport{{Name: "dragontls paired", Version: "v1"}, {Name: `<b>&"x"`, Version: "<i>"}},
		Missing: []missing{{"ghostunnel", "not installed", "go install it"}},
		Rows: rowsNamed([]string{"get-64B-c50-p1", "memory-3000", "storm", "restart", "handshake-full", "handshake-full-burst-orderly",
			"open-90", "slow-command", "slow-readers"}),
	}
	for _, r := range one.Rows {
		s := sample{Rate: 12345, P50: 80, P99: 2000, P999: 2500, ProxyCPU: 9, BackendCPU: 7, ProxyPss: 20 << 20, BackendPss: 9 << 20,
			PerConn: 24000, Calm: 12400, Rotations: 100, Leaves: 99, FirstReply: 12, CalmP99: 1000, PeakRSS: 33 << 20, Closed: 7}
		bad := s
		bad.Errors = map[string]int{"reply <ERR>": 2}
		one.Results = append(one.Results,
			&result{Row: r.ID, Peer: "dragontls paired", Samples: []sample{s, s}},
			&result{Row: r.ID, Peer: `<b>&"x"`, Samples: []sample{bad}, Unmeasured: "it fell over"})
	}
	other := *one
	other.Name, other.Figures, other.Missing = "a model", figuresModel, nil
	rep := &report{
		Machine: thisMachine(), Command: "go run ./cmd/dragonbench", Rounds: 2, WindowSeconds: 3, Warnings: []string{"busy"},
		Backends: []*backendReport{one, &other},
	}
	rep.Verdicts = judge(rep)
	return rep
}

func wantXML(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
	}
}

func TestChartsAreWellFormed(t *testing.T) {
	rep := fullReport()
	one := rep.Backends[0]
	for n := range one.Rows {
		charts := one.charts(&one.Rows[n])
		if len(charts) == 0 {
			t.Errorf("%s: no chart", one.Rows[n].ID)
		}
		wantXML(t, drawing(charts, false))
	}
	path := filepath.Join(t.TempDir(), "figures.svg")
	if err := rep.writeSVG(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantXML(t, string(b))
	if !bytes.Contains(b, []byte("prefers-color-scheme:dark")) {
		t.Error("the chart knows no dark page")
	}
}

func TestBarsAreToScale(t *testing.T) {
	c := chart{bars: []bar{{parts: []float64{100}}, {parts: []float64{25, 25}}}}
	var widths []string
	for _, m := range regexp.MustCompile(`width="([0-9.]+)"`).FindAllStringSubmatch(c.svg(), -1) {
		widths = append(widths, m[1])
	}
	if got, want := strings.Join(widths, " "), "440.0 110.0 110.0"; got != want {
		t.Errorf("got widths %s, want %s", got, want)
	}
}

func TestHTMLNeedsNothingElseAndQuotesEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.html")
	if err := fullReport().writeHTML(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", "")
	for _, bad := range []string{"http:", "https:", "src=", "href=", "<b>", "<script", "@import", "url("} {
		if strings.Contains(text, bad) {
			t.Errorf("there is %q in it", bad)
		}
	}
	for _, want := range []string{"2 x reply &lt;ERR&gt;", "it fell over", "ghostunnel: not measured: not installed", "<svg", "busy",
		"prefers-color-scheme:dark"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in it", want)
		}
	}
}

func TestTextAndMarkdownSayErrorsAndWhatIsMissing(t *testing.T) {
	var text, markdown bytes.Buffer
	fullReport().writeText(&text)
	fullReport().writeMarkdown(&markdown)
	for name, got := range map[string]string{"text": text.String(), "markdown": markdown.String()} {
		for _, want := range []string{"ERRORS: 2 x reply <ERR>", "12,345/s", "ghostunnel", "not installed", "busy", "23.4 KiB",
			"2.50 ms", "p99 without them 1.00 ms, longest wait -, peak RSS 33.0 MiB, 7 of them closed"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: there is no %q in\n%s", name, want, got)
			}
		}
	}
	// The page shows the figures of its run.
	if got := markdown.String(); !strings.Contains(got, " other figures were not measured in this run; without `--markdown`, ") || strings.Contains(got, notMeasurable) {
		t.Errorf("figures that were not measured are listed, or not counted, in\n%s", got)
	}
}

// The figures of one backend are never compared with those of another: each has its table, and its verdicts bear its name.
func TestBackendsAreKeptApart(t *testing.T) {
	var text, markdown bytes.Buffer
	rep := fullReport()
	rep.writeText(&text)
	rep.writeMarkdown(&markdown)
	path := filepath.Join(t.TempDir(), "report.html")
	if err := rep.writeHTML(path); err != nil {
		t.Fatal(err)
	}
	html, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, text, head, row string }{
		{"text", text.String(), "backend: ", ""},
		{"markdown", markdown.String(), "In front of ", "| "},
		{"html", string(html), "<h2>In front of ", "<h3>"},
	} {
		_, rest, _ := strings.Cut(test.text, test.head+"redis-server 7")
		first, second, found := strings.Cut(rest, test.head+"a model")
		title := test.row + "GET 64 B, 50 connections, no pipeline"
		if !found || strings.Count(first, title) != 1 || strings.Count(second, title) != 1 {
			t.Errorf("%s: not one table for each backend:\n%s", test.name, test.text)
		}
	}
	seen := map[string]int{}
	for _, v := range rep.Verdicts {
		seen[v.Backend]++
	}
	if seen[figuresRedis] == 0 || seen[figuresModel] == 0 || seen[figuresDragonfly] != 0 || seen[figuresSlow] != 1 {
		t.Errorf("got verdicts for %v", seen)
	}
}

func TestJSONHoldsEverySample(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	if err := fullReport().writeJSON(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if got := find(back.Backends[1].Results, "storm", "dragontls paired"); got == nil || len(got.Samples) != 2 || got.Samples[1].Leaves != 99 {
		t.Errorf("got %+v", got)
	}
}

func TestBusyMachineIsSaid(t *testing.T) {
	quiet := machine{CPUs: 4, LoadBefore: 0.2}
	if got := quiet.warnings(); len(got) != 0 {
		t.Errorf("quiet: got %q", got)
	}
	busy := machine{CPUs: 4, LoadBefore: 2}
	if got := busy.warnings(); len(got) != 1 || !strings.Contains(got[0], "load average 2.00 on 4 CPUs") {
		t.Errorf("busy: got %q", got)
	}
	b := &bench{rig: &rig{backendIs: "redis-server 7"}, results: []*result{{Row: "r", Peer: "p", Samples: []sample{{Rate: 1, LoadCPU: 1, OthersCPU: 0.4, Steal: 0.1}}}}}
	warnings := strings.Join(newReport(plan{}, []*bench{b}, quiet, 0, "").Warnings, "\n")
	for _, want := range []string{"other processes used 40 %", "hypervisor took 10 %"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("there is no %q in %q", want, warnings)
		}
	}
}

func TestUnequalCiphersAreSaid(t *testing.T) {
	results := []*result{{Peer: "a", Samples: []sample{{Session: "TLS 1.3 X"}}}, {Peer: "b", Samples: []sample{{Session: "TLS 1.3 X"}}}}
	if got := unequalSessions(results); len(got) != 0 {
		t.Errorf("equal: got %q", got)
	}
	results[1].Samples[0].Session = "TLS 1.3 Y"
	if got := unequalSessions(results); len(got) != 1 || !strings.Contains(got[0], "not the same work") {
		t.Errorf("unequal: got %q", got)
	}
}

func TestTimeToConnectIsLeftOutOfTheRate(t *testing.T) {
	// 1,000 a second behind 2 s of connecting.
	if got := rateBetween(1000, 1000.0/3, 4000, 4000.0/6); got < 999.9 || got > 1000.1 {
		t.Errorf("got %v, want 1000", got)
	}
	if got := rateBetween(1000, 500, 2000, 1000); got != 0 {
		t.Errorf("a longer run that took no longer: got %v, want 0", got)
	}
}

func TestRedisBenchmarkOutput(t *testing.T) {
	out := "WARNING: something\n" + `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"` +
		"\n" + `"GET","17167.38","2.217","0.208","1.679","4.903","7.935","91.711"` + "\n"
	s, err := parseRedisBenchmark(out)
	if err != nil || s.Rate != 17167.38 || s.P50 != 1679 || s.P99 != 7935 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := parseRedisBenchmark("Could not connect"); err == nil {
		t.Error("no figures, no error")
	}
}
