//go:build unix

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// series is what the code says of a metric.
type series struct {
	kind     string              // counter, gauge or histogram
	labels   map[string]bool     // by name
	literals map[string][]string // the values of a label that stand in the code
	computed map[string]bool     // labels that have other values, too
}

// seriesInCode reads the metrics out of the source of this package: a scrape lacks those that count what has not happened yet.
func seriesInCode(t *testing.T) map[string]*series {
	t.Helper()
	found := map[string]*series{}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				seriesOfFunction(f, found)
			}
		}
	}
	return found
}

// seriesOfFunction finds the calls m.counter(name, help, value, labels...) and their like.
func seriesOfFunction(f *ast.FuncDecl, found map[string]*series) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 3 {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		name, isText := text(call.Args[0])
		if !ok || !isText || !slices.Contains([]string{"counter", "gauge", "histogram"}, method.Sel.Name) {
			return true
		}
		s := found[name]
		if s == nil {
			s = &series{method.Sel.Name, map[string]bool{}, map[string][]string{}, map[string]bool{}}
			found[name] = s
		}
		for _, arg := range call.Args[3:] {
			if variable, ok := arg.(*ast.Ident); ok {
				arg = assigned(f, variable.Name)
			}
			s.addLabels(arg)
		}
		return true
	})
}

// assigned returns what the function assigns to a variable.
func assigned(f *ast.FuncDecl, variable string) (value ast.Expr) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == 1 && len(a.Rhs) == 1 {
			if left, ok := a.Lhs[0].(*ast.Ident); ok && left.Name == variable {
				value = a.Rhs[0]
			}
		}
		return true
	})
	return value
}

// addLabels adds every label(name, value) in an expression.
func (s *series) addLabels(e ast.Expr) {
	if e == nil {
		return
	}
	ast.Inspect(e, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != "label" {
			return true
		}
		name, _ := text(call.Args[0])
		if value, ok := text(call.Args[1]); ok {
			s.literals[name] = append(s.literals[name], value)
		} else {
			s.computed[name] = true
		}
		s.labels[name] = true
		return true
	})
}

func text(e ast.Expr) (string, bool) {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(literal.Value)
	return s, err == nil
}

// A scrape has no metric and no label that seriesInCode misses, so that the tests below judge by the whole list.
func TestScrapeHasTheMetricsOfTheCode(t *testing.T) {
	t.Parallel()
	need(t, "redis-server")
	code := seriesInCode(t)
	if len(code) < 35 {
		t.Fatalf("%d metrics in the code: the search misses some", len(code))
	}
	p := serving(t, redisServer(t).url()).wantReady()
	_, body := p.get("/metrics")
	scraped := 0
	for line := range strings.Lines(body) {
		m := sampleLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil || !strings.HasPrefix(m[1], "dragontls_") {
			continue
		}
		name := strings.TrimPrefix(m[1], "dragontls_")
		s := code[name]
		if s == nil {
			s = code[histogramSuffix.ReplaceAllString(name, "")]
		}
		if s == nil {
			t.Errorf("%s is not found in the code", m[1])
			continue
		}
		scraped++
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			if !s.labels[l[1]] && (l[1] != "le" || s.kind != "histogram") {
				t.Errorf("the label %s of %s is not found in the code", l[1], m[1])
			}
		}
	}
	if scraped < 40 {
		t.Errorf("%d samples scraped, there are more", scraped)
	}
	wantOthersExist(t, p.metrics(), dashboardTexts(t))
	p.wantEnd()
}

// wantOthersExist judges the metrics of the Go runtime and of the process by a scrape.
func wantOthersExist(t *testing.T, scraped samples, texts []string) {
	t.Helper()
	for _, one := range texts {
		for _, name := range regexp.MustCompile(`\b(?:go|process)_\w+`).FindAllString(one, -1) {
			if !scraped.has(name) {
				t.Errorf("the dashboard asks for %s, which does not exist", name)
			}
		}
	}
}

var (
	histogramSuffix = regexp.MustCompile(`_(bucket|sum|count)$`)
	metricIn        = regexp.MustCompile(`\bdragontls_(\w+)(?:\{([^}]*)\})?`)
	matcherIn       = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	groupingIn      = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
	templateIn      = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z]\w*)\s*\}\}`)
	ofPrometheus    = []string{"job", "instance", "le"}
)

// judgeQuery compares an expression of PromQL, and the text that shows its result, with the metrics of the code. It returns the
// names of the metrics, and every fault.
func judgeQuery(code map[string]*series, reasons map[string]map[string]bool, expr, shown string) (names, faults []string) {
	labels := map[string]bool{}
	for _, m := range metricIn.FindAllStringSubmatch(expr, -1) {
		name := m[1]
		s := code[name]
		if base := histogramSuffix.ReplaceAllString(name, ""); s == nil && code[base] != nil && code[base].kind == "histogram" {
			name, s = base, code[base]
		}
		if s == nil {
			faults = append(faults, "there is no metric dragontls_"+m[1])
			continue
		}
		names = append(names, name)
		for l := range s.labels {
			labels[l] = true
		}
		faults = append(faults, s.judgeMatchers(name, m[2], reasons)...)
	}
	used := templateIn.FindAllStringSubmatch(shown, -1)
	for _, group := range groupingIn.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(group[1], ",") {
			used = append(used, []string{"", strings.TrimSpace(l)})
		}
	}
	for _, l := range used {
		if !labels[l[1]] && !slices.Contains(ofPrometheus, l[1]) {
			faults = append(faults, "no metric has the label "+l[1])
		}
	}
	return names, faults
}

// judgeMatchers judges what stands between the braces: names of labels, and values where the code has a list of them.
func (s *series) judgeMatchers(name, matchers string, reasons map[string]map[string]bool) (faults []string) {
	for _, m := range matcherIn.FindAllStringSubmatch(matchers, -1) {
		label := m[1]
		if slices.Contains(ofPrometheus, label) {
			continue
		}
		if !s.labels[label] {
			faults = append(faults, name+" has no label "+label)
			continue
		}
		for value := range strings.SplitSeq(m[3], "|") {
			known := s.computed[label] || slices.Contains(s.literals[label], value)
			if listed := reasons[name]; label == "reason" && listed != nil {
				known = listed[value]
			}
			if !known {
				faults = append(faults, name+" never has "+label+"="+value)
			}
		}
	}
	return faults
}

// reasonsInCode are the values of the label reason.
func reasonsInCode(t *testing.T) map[string]map[string]bool {
	t.Helper()
	metrics := map[string]string{
		"reasons of handshakes": "handshakes_total", "reasons of sessions": "sessions_closed_total",
		"reasons of backend errors": "backend_errors_total", "reasons of backend recoveries": "backend_recoveries_total",
	}
	found := map[string]map[string]bool{}
	for _, r := range reasonTables {
		if name := metrics[r.name]; name != "" {
			found[name] = r.inCode(t)
		}
	}
	if len(found) != len(metrics) {
		t.Fatal("a table of reasons is gone")
	}
	return found
}

// Judging finds what it is there to find.
func TestATypoInAQueryIsFound(t *testing.T) {
	t.Parallel()
	code, reasons := seriesInCode(t), reasonsInCode(t)
	for _, q := range []struct{ expr, shown, fault string }{
		{`rate(dragontls_backend_errors_total{reason="lane", job="$job"}[5m])`, "{{reason}} {{ $labels.instance }}", ""},
		{`histogram_quantile(0.5, sum by (le) (rate(dragontls_command_seconds_bucket[5m])))`, "", ""},
		{`dragontls_backend_upp`, "", "there is no metric dragontls_backend_upp"},
		{`dragontls_backend_up_count`, "", "there is no metric dragontls_backend_up_count"},
		{`dragontls_connections{of="open"}`, "", "connections has no label of"},
		{`dragontls_connections{state="opened"}`, "", "connections never has state=opened"},
		{`dragontls_backend_errors_total{reason=~"lane|lanes"}`, "", "backend_errors_total never has reason=lanes"},
		{`sum by (path, reason) (dragontls_commands_total)`, "", "no metric has the label reason"},
		{`dragontls_cert_not_after_seconds`, "{{ $labels.name }}", "no metric has the label name"},
		{`dragontls_limit_used`, "{{name}}", "no metric has the label name"},
	} {
		_, faults := judgeQuery(code, reasons, q.expr, q.shown)
		if got := strings.Join(faults, ", "); got != q.fault {
			t.Errorf("%s %s: got %q, want %q", q.expr, q.shown, got, q.fault)
		}
	}
}
